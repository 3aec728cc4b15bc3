/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A counter in memory that others may write: each of them adds to it by itself, and the process that
 * owns it does nothing meanwhile.
 *
 *     ./counter serve 2 &         # shows the sum when two others have counted
 *     ./counter count 1000
 *     ./counter count 1000
 */
#include <diolkos.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HELLO = 1, KEY = 2, READY = 3 };

static void must(int code, const char *what)
{
    if (code != DIO_SUCCESS) {
        fprintf(stderr, "%s: %s\n", what, dio_error_text());
        exit(1);
    }
}

/* Waits for a request, which must end well. */
static dio_status finish(dio_endpoint *endpoint, dio_request request)
{
    dio_status status;
    int code;
    do {
        code = dio_wait(endpoint, request, -1, &status);
    } while (code == DIO_INTERRUPTED);
    must(code, "wait");
    if (status.code != DIO_SUCCESS) {
        fprintf(stderr, "%s\n", dio_strerror(status.code));
        exit(1);
    }
    return status;
}

static void serve(long others)
{
    dio_options options = DIO_OPTIONS_INIT;
    dio_endpoint *endpoint;
    dio_memory *memory;
    dio_region *region;
    dio_key key;
    dio_request request;
    uint64_t *counter;
    long i;

    options.name = "counter";
    must(dio_open(&options, &endpoint), "open");
    must(dio_alloc(endpoint, sizeof *counter, 64, DIO_ANY_PEER, &memory), "alloc");
    counter = (uint64_t *)dio_memory_data(memory);
    *counter = 0;
    must(dio_register(endpoint, counter, sizeof *counter, DIO_READ_WRITE, DIO_ANY_PEER, &region),
         "register");
    must(dio_region_key(region, &key), "key");
    printf("counting at endpoint %s\n", dio_name(endpoint));
    fflush(stdout);
    for (i = 0; i < others; i++) {
        dio_status hello;
        must(dio_irecv(endpoint, NULL, 0, HELLO, UINT64_MAX, DIO_ANY_PEER, &request), "receive");
        hello = finish(endpoint, request);
        must(dio_region_grant(region, hello.peer), "grant");
        must(dio_isend(endpoint, &key, sizeof key, hello.peer, KEY, 0, 0, &request), "send");
        finish(endpoint, request);
    }
    for (i = 0; i < others; i++) {
        must(dio_irecv(endpoint, NULL, 0, READY, UINT64_MAX, DIO_ANY_PEER, &request), "receive");
        finish(endpoint, request);
    }
    /* Nobody counts after this. */
    must(dio_region_revoke(region), "revoke");
    printf("%llu\n", (unsigned long long)*counter);
    dio_region_free(region);
    dio_free(memory);
    must(dio_close(endpoint), "close");
}

static void count(long times)
{
    dio_endpoint *endpoint;
    dio_peer owner;
    dio_key key;
    dio_request request;
    long i;

    must(dio_open(NULL, &endpoint), "open");
    must(dio_connect(endpoint, "counter", 5000, &owner), "connect");
    must(dio_isend(endpoint, NULL, 0, owner, HELLO, 0, 0, &request), "send");
    finish(endpoint, request);
    must(dio_irecv(endpoint, &key, sizeof key, KEY, UINT64_MAX, owner, &request), "receive");
    finish(endpoint, request);
    for (i = 0; i < times; i++) {
        must(dio_fetch_add(endpoint, owner, &key, 0, 1, &request), "add");
        finish(endpoint, request);
    }
    must(dio_isend(endpoint, NULL, 0, owner, READY, 0, DIO_SYNCHRONOUS, &request), "send");
    finish(endpoint, request);
    must(dio_close(endpoint), "close");
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0) {
        serve(atol(argv[2]));
    } else if (argc == 3 && strcmp(argv[1], "count") == 0) {
        count(atol(argv[2]));
    } else {
        fprintf(stderr, "usage: counter serve OTHERS | counter count TIMES\n");
        return 2;
    }
    return 0;
}
