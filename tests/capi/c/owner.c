/* SPDX-License-Identifier: Apache-2.0 */
/* Owns a region, lends memory, and takes messages: the other side is user.c. With an argument,
 * memory is reached through copies. */
#include "check.h"

int main(int argc, char **argv)
{
    dio_options options = DIO_OPTIONS_INIT;
    dio_endpoint *endpoint = NULL;
    dio_memory *memory = NULL;
    dio_region *region = NULL;
    dio_key key;
    dio_status status;
    dio_request request, lent;
    dio_peer user;
    char text[16];
    unsigned char *bytes;
    uint64_t word;
    size_t i, length = 3u << 20;
    (void)argv;

    options.name = "owner";
    CALL(dio_open(&options, &endpoint));
    CALL(dio_alloc(endpoint, length, 64, DIO_ANY_PEER, &memory));
    CHECK(dio_memory_length(memory) == length);
    bytes = (unsigned char *)dio_memory_data(memory);
    for (i = 0; i < length; i++) {
        bytes[i] = (unsigned char)(i * 7 + 3);
    }
    memset(bytes, 0, 8);
    printf("ready\n");
    fflush(stdout);

    /* A first message says who the user is. */
    CALL(dio_irecv(endpoint, text, sizeof text, 1, UINT64_MAX, DIO_ANY_PEER, &request));
    status = finish(endpoint, request, DIO_SUCCESS);
    CHECK(status.message_bytes == 6 && memcmp(text, "hello", 6) == 0 && status.immediate == 77);
    user = status.peer;

    CALL(dio_register(endpoint, bytes, length, DIO_READ_WRITE, user, &region));
    CALL(dio_region_key(region, &key));
    CALL(dio_isend(endpoint, &key, sizeof key, user, 2, 0, 0, &request));
    finish(endpoint, request, DIO_SUCCESS);

    /* Notified when the user has written and counted. */
    CALL(dio_irecv(endpoint, NULL, 0, 3, UINT64_MAX, user, &request));
    status = finish(endpoint, request, DIO_SUCCESS);
    CHECK(status.immediate == 5);
    CHECK(memcmp(bytes + 100, "written", 8) == 0);
    memcpy(&word, bytes, sizeof word);
    CHECK(word == 1000);

    CALL(dio_region_revoke(region));
    CALL(dio_region_revoke(region));
    CALL(dio_isend(endpoint, NULL, 0, user, 4, 0, DIO_SYNCHRONOUS, &request));
    finish(endpoint, request, DIO_SUCCESS);
    dio_region_free(region);

    CALL(dio_lend(endpoint, bytes, length, user, 5, 0, &lent));
    finish(endpoint, lent, DIO_SUCCESS);
    CALL(dio_lend(endpoint, bytes, length, user, 6, 0, &lent));
    /* The user leaves with this one. */
    if (argc == 1) {
        finish(endpoint, lent, DIO_PEER_CLOSED);
        EXPECT(DIO_PEER_CLOSED, dio_peer_state(endpoint, user));
    } else {
        /* A copy that has left is back with its lender. */
        CALL(dio_wait(endpoint, lent, PATIENCE_MS, &status));
        while (dio_peer_state(endpoint, user) == DIO_SUCCESS) {
        }
    }
    dio_free(memory);
    CALL(dio_close(endpoint));
    return 0;
}
