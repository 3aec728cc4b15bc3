/* SPDX-License-Identifier: Apache-2.0 */
/* Uses what owner.c has. With an argument, memory is reached through copies. */
#include <poll.h>

#include "check.h"

static unsigned char buffer[3u << 20];

int main(int argc, char **argv)
{
    dio_options options = DIO_OPTIONS_INIT;
    dio_endpoint *endpoint = NULL;
    dio_peer owner, peers[4];
    dio_key key;
    dio_status status;
    dio_request request, requests[2];
    dio_loan *loan = NULL;
    dio_counters_t counters;
    char name[80];
    size_t i, count, index;
    uint64_t length, total;
    unsigned access;
    uint32_t number;
    int fd, copies = argc > 1;
    (void)argv;

    options.name = "user";
    CALL(dio_open(&options, &endpoint));
    CALL(dio_connect(endpoint, "owner", PATIENCE_MS, &owner));
    CALL(dio_peers(endpoint, peers, 4, &count));
    CHECK(count == 1 && peers[0] == owner);
    CALL(dio_peer_name(endpoint, owner, name, sizeof name));
    CHECK(strcmp(name, "owner") == 0);
    EXPECT(DIO_INVALID, dio_peer_name(endpoint, owner, name, 5));
    CALL(dio_peer_number(endpoint, owner, &number));
    CHECK(number != dio_number(endpoint));
    CALL(dio_peer_state(endpoint, owner));

    CALL(dio_isend(endpoint, "hello", 6, owner, 1, 77, 0, &request));
    finish(endpoint, request, DIO_SUCCESS);

    /* The key comes while an event loop sleeps. */
    CALL(dio_irecv(endpoint, &key, sizeof key, 2, UINT64_MAX, DIO_ANY_PEER, &request));
    CALL(dio_fd(endpoint, &fd));
    while (dio_test(endpoint, request, &status) == DIO_NOT_YET) {
        int armed = dio_arm(endpoint);
        if (armed == DIO_NOT_YET) {
            struct pollfd waiting;
            waiting.fd = fd;
            waiting.events = POLLIN;
            CHECK(poll(&waiting, 1, PATIENCE_MS) == 1);
        }
        CALL(dio_disarm(endpoint));
    }
    CHECK(status.code == DIO_SUCCESS && status.message_bytes == DIO_KEY_BYTES);
    CALL(dio_key_info(&key, &length, &access));
    CHECK(length == sizeof buffer && access == DIO_READ_WRITE);

    CALL(dio_rdma_read(endpoint, buffer, sizeof buffer, owner, &key, 0, &request));
    finish(endpoint, request, DIO_SUCCESS);
    for (i = 8; i < sizeof buffer; i++) {
        CHECK(buffer[i] == (unsigned char)(i * 7 + 3));
    }
    for (total = 0; total < 998; total++) {
        CALL(dio_fetch_add(endpoint, owner, &key, 0, 1, &request));
        status = finish(endpoint, request, DIO_SUCCESS);
        CHECK(status.match_info == total);
    }
    CALL(dio_compare_swap(endpoint, owner, &key, 0, 5, 6, &request));
    CHECK(finish(endpoint, request, DIO_SUCCESS).match_info == 998);
    CALL(dio_compare_swap(endpoint, owner, &key, 0, 998, 1000, &request));
    CHECK(finish(endpoint, request, DIO_SUCCESS).match_info == 998);
    EXPECT(DIO_OUT_OF_RANGE, dio_fetch_add(endpoint, owner, &key, 4, 1, &request));
    EXPECT(DIO_OUT_OF_RANGE, dio_rdma_read(endpoint, buffer, 9, owner, &key, length - 8, &request));
    CALL(dio_rdma_fence(endpoint, owner, &request));
    finish(endpoint, request, DIO_SUCCESS);
    CALL(dio_rdma_write_notify(endpoint, "written", 8, owner, &key, 100, 3, 5, &request));
    finish(endpoint, request, DIO_SUCCESS);

    CALL(dio_probe(endpoint, 4, UINT64_MAX, owner, PATIENCE_MS, &status));
    CHECK(status.message_bytes == 0);
    CALL(dio_irecv(endpoint, NULL, 0, 4, UINT64_MAX, owner, &request));
    finish(endpoint, request, DIO_SUCCESS);
    CALL(dio_rdma_write(endpoint, "no", 2, owner, &key, 0, &request));
    finish(endpoint, request, DIO_REVOKED);

    /* Two loans: one goes back, with one we leave. */
    CALL(dio_irecv_loan(endpoint, 5, UINT64_MAX, owner, &requests[0]));
    CALL(dio_irecv_loan(endpoint, 6, UINT64_MAX, owner, &requests[1]));
    EXPECT(DIO_NOT_YET, dio_test(endpoint, requests[1], NULL));
    EXPECT(DIO_INVALID, dio_take_loan(endpoint, requests[1], &loan));
    CALL(dio_wait_any(endpoint, requests, 2, PATIENCE_MS, &index, &status));
    CHECK(index == 0 && status.code == DIO_SUCCESS);
    CALL(dio_take_loan(endpoint, requests[0], &loan));
    EXPECT(DIO_INVALID, dio_take_loan(endpoint, requests[0], &loan));
    CHECK(dio_loan_length(loan) == sizeof buffer);
    CHECK(dio_loan_is_copied(loan) == copies);
    CHECK(memcmp((const unsigned char *)dio_loan_data(loan) + 200, buffer + 200,
                 sizeof buffer - 200) == 0);
    dio_release(loan);
    if (!copies) {
        finish(endpoint, requests[1], DIO_SUCCESS);
        CALL(dio_take_loan(endpoint, requests[1], &loan));
    }
    CALL(dio_counters(endpoint, &counters));
    CHECK(counters.tx_messages > 0 && counters.rx_messages > 0);
    CALL(dio_close(endpoint));
    if (!copies) {
        CHECK(((const unsigned char *)dio_loan_data(loan))[300] == buffer[300]);
        dio_release(loan);
    }
    return 0;
}
