// SPDX-License-Identifier: Apache-2.0
//
// Ping-pong, stream, message rate and one-sided operations over MPI: the rivals of the native face.
//
// The loops are those of exchange.h and one_sided.h. A one-sided operation is followed by
// MPI_Win_flush: then it is complete at the target, as ours is. MPI errors abort the job, as is MPI's
// default, and the coordinator reports what the launcher printed.
//
// Build: mpicc -O2 mpi_loop.c, or cc -O2 -DDIOLKOS_MPICH_ABI mpi_loop.c .../libmpi.so.12

#define EXCHANGE_HAS_ONE_SIDED
#include "exchange.h"

#ifdef DIOLKOS_MPICH_ABI
#include "mpich_abi.h"
#else
#include <mpi.h>
#endif

enum { TAG = 7, TAG_ACKNOWLEDGE = 8, TAG_TURN = 9, TARGET = 1 };

static int peer_of(const struct side *side)
{
    return 1 - side->number;
}

static void send_message(const struct side *side, const char *bytes, uint64_t size)
{
    MPI_Send(bytes, (int)size, MPI_BYTE, peer_of(side), TAG, MPI_COMM_WORLD);
}

static void receive_message(const struct side *side, char *bytes, uint64_t size)
{
    MPI_Recv(bytes, (int)size, MPI_BYTE, peer_of(side), TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

static MPI_Request requests[WINDOW_LIMIT];

static void window_send(const struct side *side, const char *bytes, uint64_t size, uint64_t window)
{
    for (uint64_t i = 0; i < window; i++)
        MPI_Isend(bytes, (int)size, MPI_BYTE, peer_of(side), TAG, MPI_COMM_WORLD, &requests[i]);
    MPI_Waitall((int)window, requests, MPI_STATUSES_IGNORE);
}

static void window_receive(const struct side *side, char *bytes, uint64_t size, uint64_t window)
{
    for (uint64_t i = 0; i < window; i++)
        MPI_Irecv(bytes, (int)size, MPI_BYTE, peer_of(side), TAG, MPI_COMM_WORLD, &requests[i]);
    MPI_Waitall((int)window, requests, MPI_STATUSES_IGNORE);
}

static void acknowledge(const struct side *side)
{
    if (side->number == 0)
        MPI_Recv(NULL, 0, MPI_BYTE, peer_of(side), TAG_ACKNOWLEDGE, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    else
        MPI_Send(NULL, 0, MPI_BYTE, peer_of(side), TAG_ACKNOWLEDGE, MPI_COMM_WORLD);
}

static MPI_Win window = MPI_WIN_NULL;

// A window that is open to side 0 all the time (passive target), in memory that the library chooses.
static char *target_open(const struct side *side, uint64_t size)
{
    char *memory = NULL;
    if (window != MPI_WIN_NULL) {
        MPI_Win_unlock_all(window);
        MPI_Win_free(&window);
    }
    MPI_Win_allocate(side->number == TARGET ? (MPI_Aint)size : 0, 1, MPI_INFO_NULL, MPI_COMM_WORLD,
                     &memory, &window);
    MPI_Win_lock_all(0, window);
    if (side->number != TARGET)
        return NULL;
    memset(memory, 0, size);
    return memory;
}

static void target_write(const char *local, uint64_t size)
{
    MPI_Put(local, (int)size, MPI_BYTE, TARGET, 0, (int)size, MPI_BYTE, window);
    MPI_Win_flush(TARGET, window);
}

static void target_read(char *local, uint64_t size)
{
    MPI_Get(local, (int)size, MPI_BYTE, TARGET, 0, (int)size, MPI_BYTE, window);
    MPI_Win_flush(TARGET, window);
}

static uint64_t target_add(uint64_t addend)
{
    uint64_t old;
    MPI_Fetch_and_op(&addend, &old, MPI_UINT64_T, TARGET, 0, MPI_SUM, window);
    MPI_Win_flush(TARGET, window);
    return old;
}

static void give_turn(const struct side *side)
{
    MPI_Win_sync(window);
    MPI_Send(NULL, 0, MPI_BYTE, peer_of(side), TAG_TURN, MPI_COMM_WORLD);
}

static void wait_turn(const struct side *side)
{
    MPI_Recv(NULL, 0, MPI_BYTE, peer_of(side), TAG_TURN, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Win_sync(window);
}

// The library's version as a JSON object: its first line, without what JSON would have to escape.
static void describe(char *hello, size_t size)
{
    static char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    MPI_Get_library_version(version, &length);
    for (char *c = version; *c != '\0'; c++)
        if (*c == '"' || *c == '\\' || *c < ' ')
            *c = *c == '\n' ? '\0' : ' ';
    snprintf(hello, size, "{\"library\": \"%.160s\"}", version);
}

int main(int argc, char **argv)
{
    struct side side = {0};
    char hello[256];
    int ranks = 0;

    side_prepare(&side);
    MPI_Init(&argc, &argv);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (ranks != 2) {
        fprintf(stderr, "mpi_loop: started with %d ranks, it needs 2\n", ranks);
        return 2;
    }
    describe(hello, sizeof hello);
    side_connect(&side, hello);
    exchange_until_told(&side);
    if (window != MPI_WIN_NULL) {
        MPI_Win_unlock_all(window);
        MPI_Win_free(&window);
    }
    MPI_Finalize();
    return 0;
}
