// SPDX-License-Identifier: Apache-2.0
//
// Ping-pong, stream and message rate over MPI: the rivals of the native face.
//
// The loops are those of exchange.h. MPI errors abort the job, as is MPI's default, and the
// coordinator reports what the launcher printed.
//
// Build: mpicc -O2 mpi_loop.c, or cc -O2 -DDIOLKOS_MPICH_ABI mpi_loop.c .../libmpi.so.12

#include "exchange.h"

#ifdef DIOLKOS_MPICH_ABI
#include "mpich_abi.h"
#else
#include <mpi.h>
#endif

enum { TAG = 7, TAG_ACKNOWLEDGE = 8 };

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
    MPI_Finalize();
    return 0;
}
