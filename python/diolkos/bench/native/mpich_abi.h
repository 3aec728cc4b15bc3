// SPDX-License-Identifier: Apache-2.0
//
// The names of MPI that mpi_loop.c uses, with the values of the MPICH ABI: enough to build
// it against the runtime of Intel MPI (or MPICH), whose wheel ships no headers. The values are
// fixed by the ABI Compatibility Initiative of MPICH, Intel, Cray and ParaStation (libmpi.so.12).

#ifndef DIOLKOS_BENCH_MPICH_ABI_H
#define DIOLKOS_BENCH_MPICH_ABI_H

typedef int MPI_Comm;
typedef int MPI_Datatype;
typedef int MPI_Request;
typedef int MPI_Info;
typedef int MPI_Op;
typedef int MPI_Win;
typedef long MPI_Aint;
typedef struct {
    int count_lo, count_hi_and_cancelled, MPI_SOURCE, MPI_TAG, MPI_ERROR;
} MPI_Status;

#define MPI_COMM_WORLD ((MPI_Comm)0x44000000)
#define MPI_BYTE ((MPI_Datatype)0x4c00010d)
#define MPI_UINT64_T ((MPI_Datatype)0x4c00083e)
#define MPI_SUM ((MPI_Op)0x58000003)
#define MPI_INFO_NULL ((MPI_Info)0x1c000000)
#define MPI_WIN_NULL ((MPI_Win)0x20000000)
#define MPI_STATUS_IGNORE ((MPI_Status *)1)
#define MPI_STATUSES_IGNORE ((MPI_Status *)1)
#define MPI_MAX_LIBRARY_VERSION_STRING 8192

int MPI_Init(int *argc, char ***argv);
int MPI_Finalize(void);
int MPI_Comm_size(MPI_Comm comm, int *size);
int MPI_Get_library_version(char *version, int *length);
int MPI_Send(const void *buf, int count, MPI_Datatype type, int dest, int tag, MPI_Comm comm);
int MPI_Recv(void *buf, int count, MPI_Datatype type, int source, int tag, MPI_Comm comm,
             MPI_Status *status);
int MPI_Isend(const void *buf, int count, MPI_Datatype type, int dest, int tag, MPI_Comm comm,
              MPI_Request *request);
int MPI_Irecv(void *buf, int count, MPI_Datatype type, int source, int tag, MPI_Comm comm,
              MPI_Request *request);
int MPI_Waitall(int count, MPI_Request requests[], MPI_Status *statuses);
int MPI_Win_allocate(MPI_Aint size, int unit, MPI_Info info, MPI_Comm comm, void *base,
                     MPI_Win *window);
int MPI_Win_free(MPI_Win *window);
int MPI_Win_lock_all(int assertion, MPI_Win window);
int MPI_Win_unlock_all(MPI_Win window);
int MPI_Win_flush(int rank, MPI_Win window);
int MPI_Win_sync(MPI_Win window);
int MPI_Put(const void *origin, int count, MPI_Datatype type, int rank, MPI_Aint place,
            int target_count, MPI_Datatype target_type, MPI_Win window);
int MPI_Get(void *origin, int count, MPI_Datatype type, int rank, MPI_Aint place,
            int target_count, MPI_Datatype target_type, MPI_Win window);
int MPI_Fetch_and_op(const void *origin, void *result, MPI_Datatype type, int rank,
                     MPI_Aint place, MPI_Op operation, MPI_Win window);

#endif
