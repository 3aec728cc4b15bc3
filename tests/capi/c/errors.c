/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments that make no sense are found, each of them; and an endpoint alone. */
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

int main(void)
{
    dio_options options = DIO_OPTIONS_INIT;
    dio_endpoint *endpoint = NULL, *none = NULL;
    dio_memory *memory = NULL;
    dio_region *region = NULL;
    dio_loan *loan = NULL;
    dio_arena_t arena;
    dio_status status;
    dio_request request = 0;
    dio_peer peer;
    dio_key key;
    size_t count;
    char byte = 0;
    int code, fd;
    pid_t child;

    for (code = -5; code < 50; code++) {
        CHECK(dio_strerror(code) != NULL && dio_strerror(code)[0] != 0);
    }
    CHECK(dio_error_text() != NULL);
    CHECK(dio_version()[0] != 0 && dio_api_version() >> 16 == DIO_API_MAJOR);

    EXPECT(DIO_INVALID, dio_open(NULL, NULL));
    options.size = 3;
    EXPECT(DIO_INVALID, dio_open(&options, &endpoint));
    options.size = sizeof options;
    options.number = (int64_t)1 << 40;
    EXPECT(DIO_INVALID, dio_open(&options, &endpoint));
    options.number = -1;
    options.name = "\xff\xfe";
    EXPECT(DIO_INVALID, dio_open(&options, &endpoint));
    options.name = "alone";
    options.runtime_dir = "/nowhere";
    options.backend_command = "";
    EXPECT(DIO_UNAVAILABLE, dio_open(&options, &endpoint));
    options.runtime_dir = NULL;
    options.backend_command = NULL;
    options.arena_bytes = 1 << 20;
    CALL(dio_open(&options, &endpoint));
    CHECK(strcmp(dio_name(endpoint), "alone") == 0);
    EXPECT(DIO_REFUSED, dio_open(&options, &none));
    CHECK(strstr(dio_error_text(), "alone") != NULL);

    CALL(dio_close(NULL));
    CHECK(dio_name(NULL) == NULL && dio_number(NULL) == UINT32_MAX);
    EXPECT(DIO_INVALID, dio_counters(NULL, NULL));
    EXPECT(DIO_INVALID, dio_counters(endpoint, NULL));
    EXPECT(DIO_INVALID, dio_connect(endpoint, NULL, 0, &peer));
    EXPECT(DIO_INVALID, dio_connect(NULL, "x", 0, &peer));
    EXPECT(DIO_INVALID, dio_connect(endpoint, "x", 0, NULL));
    EXPECT(DIO_TIMEOUT, dio_connect(endpoint, "nobody", 50, &peer));
    EXPECT(DIO_NOT_CONNECTED, dio_disconnect(endpoint, 5));
    EXPECT(DIO_INVALID, dio_peers(endpoint, NULL, 1, &count));
    CALL(dio_peers(endpoint, NULL, 0, &count));
    CHECK(count == 0);
    EXPECT(DIO_NOT_CONNECTED, dio_peer_number(endpoint, 7, (uint32_t *)&peer));
    EXPECT(DIO_NOT_CONNECTED, dio_peer_state(endpoint, 7));
    CALL(dio_peer_state(endpoint, DIO_SELF));

    EXPECT(DIO_INVALID, dio_test(NULL, 0, NULL));
    CALL(dio_test(endpoint, DIO_DONE, &status));
    EXPECT(DIO_INVALID, dio_test(endpoint, 12345, &status));
    EXPECT(DIO_INVALID, dio_wait(endpoint, UINT64_MAX, 0, &status));
    EXPECT(DIO_INVALID, dio_cancel(endpoint, 12345));
    EXPECT(DIO_NOT_YET, dio_cancel(endpoint, DIO_DONE));
    CALL(dio_forget(endpoint, 12345));
    EXPECT(DIO_INVALID, dio_wait_any(endpoint, NULL, 1, 0, &count, &status));
    EXPECT(DIO_INVALID, dio_wait_any(endpoint, &request, 0, 0, &count, &status));
    EXPECT(DIO_INVALID, dio_wait_any(endpoint, &request, SIZE_MAX, 0, &count, &status));
    CALL(dio_wait_any(endpoint, &request, 1, 0, &count, &status));
    EXPECT(DIO_INVALID, dio_isend(endpoint, NULL, 1, DIO_SELF, 0, 0, 0, &request));
    EXPECT(DIO_INVALID, dio_isend(endpoint, &byte, SIZE_MAX, DIO_SELF, 0, 0, 0, &request));
    EXPECT(DIO_INVALID, dio_isend(endpoint, &byte, 1, DIO_SELF, 0, 0, 2, &request));
    EXPECT(DIO_INVALID, dio_isend(endpoint, &byte, 1, DIO_SELF, 0, 0, 0, NULL));
    EXPECT(DIO_NOT_CONNECTED, dio_isend(endpoint, &byte, 1, 9, 0, 0, 0, &request));
    EXPECT(DIO_INVALID, dio_irecv(endpoint, NULL, 1, 0, 0, DIO_ANY_PEER, &request));
    EXPECT(DIO_INVALID, dio_irecv(endpoint, &byte, 1, 1, 0, DIO_ANY_PEER, &request));
    EXPECT(DIO_NOT_YET, dio_probe(endpoint, 0, 0, DIO_ANY_PEER, 0, NULL));
    EXPECT(DIO_NOT_YET, dio_probe(endpoint, 0, 0, DIO_ANY_PEER, 10, NULL));
    CALL(dio_irecv(endpoint, &byte, 1, 1, UINT64_MAX, DIO_ANY_PEER, &request));
    EXPECT(DIO_NOT_YET, dio_wait(endpoint, request, 10, &status));
    CALL(dio_cancel(endpoint, request));
    CALL(dio_irecv(endpoint, &byte, 1, 1, UINT64_MAX, DIO_SELF, &request));
    CALL(dio_isend(endpoint, "abc", 3, DIO_SELF, 1, 0, 0, &request));
    EXPECT(DIO_INVALID, dio_fd(endpoint, NULL));
    CALL(dio_fd(endpoint, &fd));
    CALL(dio_progress(endpoint));

    EXPECT(DIO_INVALID, dio_alloc(endpoint, 1, 3, DIO_ANY_PEER, &memory));
    EXPECT(DIO_INVALID, dio_alloc(endpoint, SIZE_MAX, 1, DIO_ANY_PEER, &memory));
    EXPECT(DIO_ARENA_FULL, dio_alloc(endpoint, 2 << 20, 1, DIO_ANY_PEER, &memory));
    CHECK(strstr(dio_error_text(), "limit") != NULL);
    EXPECT(DIO_NOT_CONNECTED, dio_alloc(endpoint, 1, 1, 3, &memory));
    EXPECT(DIO_INVALID, dio_alloc(endpoint, 1, 1, DIO_ANY_PEER, NULL));
    CALL(dio_alloc(endpoint, 4096, 4096, DIO_ANY_PEER, &memory));
    CALL(dio_arena(endpoint, &arena));
    CHECK(arena.allocations == 1 && arena.limit_bytes == 1 << 20);
    EXPECT(DIO_INVALID, dio_arena(endpoint, NULL));
    CHECK(dio_memory_data(NULL) == NULL && dio_memory_length(NULL) == 0);
    dio_free(NULL);

    memset(&key, 0, sizeof key);
    EXPECT(DIO_INVALID, dio_key_info(&key, NULL, NULL));
    EXPECT(DIO_INVALID, dio_key_info(NULL, NULL, NULL));
    EXPECT(DIO_INVALID, dio_rdma_read(endpoint, &byte, 1, DIO_SELF, &key, 0, &request));
    EXPECT(DIO_INVALID, dio_register(endpoint, &byte, 1, 2, DIO_ANY_PEER, &region));
    EXPECT(DIO_INVALID, dio_register(endpoint, NULL, 1, DIO_READ, DIO_ANY_PEER, &region));
    EXPECT(DIO_INVALID, dio_region_key(NULL, &key));
    EXPECT(DIO_INVALID, dio_region_grant(NULL, 1));
    EXPECT(DIO_INVALID, dio_region_revoke(NULL));
    dio_region_free(NULL);
    CALL(dio_register(endpoint, dio_memory_data(memory), 4096, DIO_READ, DIO_ANY_PEER, &region));
    CALL(dio_region_key(region, &key));
    EXPECT(DIO_NOT_CONNECTED, dio_region_grant(region, 9));
    EXPECT(DIO_DENIED, dio_rdma_write(endpoint, &byte, 1, DIO_SELF, &key, 0, &request));
    EXPECT(DIO_DENIED, dio_fetch_add(endpoint, DIO_SELF, &key, 0, 1, &request));
    EXPECT(DIO_OUT_OF_RANGE, dio_rdma_read(endpoint, &byte, 1, DIO_SELF, &key, 4096, &request));
    EXPECT(DIO_INVALID, dio_rdma_read(endpoint, NULL, 1, DIO_SELF, &key, 0, &request));
    CALL(dio_rdma_read(endpoint, &byte, 1, DIO_SELF, &key, 0, &request));
    finish(endpoint, request, DIO_SUCCESS);
    dio_region_free(region);
    CALL(dio_rdma_read(endpoint, &byte, 1, DIO_SELF, &key, 0, &request));
    finish(endpoint, request, DIO_REVOKED);

    EXPECT(DIO_INVALID, dio_lend(endpoint, &byte, 1, DIO_SELF, 0, 0, &request));
    EXPECT(DIO_INVALID, dio_take_loan(endpoint, 12345, &loan));
    EXPECT(DIO_INVALID, dio_irecv_loan(endpoint, 0, 0, DIO_ANY_PEER, NULL));
    CHECK(dio_loan_data(NULL) == NULL && dio_loan_length(NULL) == 0);
    CHECK(dio_loan_is_copied(NULL) == 0);
    dio_release(NULL);

    child = fork();
    if (child == 0) {
        _exit(dio_progress(endpoint) == DIO_FORKED && dio_close(endpoint) == DIO_SUCCESS ? 0 : 1);
    }
    CHECK(waitpid(child, &code, 0) == child && code == 0);
    CALL(dio_progress(endpoint));
    CALL(dio_close(endpoint));
    /* Memory outlives its endpoint. */
    memset(dio_memory_data(memory), 1, 4096);
    dio_free(memory);
    return 0;
}
