// SPDX-License-Identifier: Apache-2.0
//
// What crashed or hung older libraries: unknown codes, absurd counts and lengths, closed endpoints,
// null pointers where something has to be.

#include "check.h"

static void texts(void)
{
    static const int CODES[] = {0, 1, 43, 44, 89, 90, 95, 99, 100, 101, 4096, -1, INT32_MAX,
                                INT32_MIN};
    CHECK(strcmp(mx_strerror(MX_SUCCESS), "Success") == 0);
    for (size_t i = 0; i < COUNT_OF(CODES); i++) {
        const char *error = mx_strerror((mx_return_t)CODES[i]);
        const char *status = mx_strstatus((mx_status_code_t)CODES[i]);
        CHECK(error != NULL && error[0] != '\0');
        CHECK(status != NULL && status[0] != '\0');
    }
    for (int i = 0; i <= 43; i++)
        CHECK(mx_strerror((mx_return_t)i)[0] != '\0');
    for (int i = 1; i <= 16; i++)
        CHECK(strcmp(mx_strstatus((mx_status_code_t)i), mx_strstatus(MX_STATUS_SUCCESS)) != 0);
}

static void counts(mx_endpoint_t ep)
{
    char byte = 0;
    mx_segment_t one = segment(&byte, 1);
    mx_request_t request;
    static const uint32_t COUNTS[] = {257, 1000, 65536, 0x10000001, 0x7fffffff, 0xffffffff};

    for (size_t i = 0; i < COUNT_OF(COUNTS); i++) {
        RETURNS(mx_isend(ep, &one, COUNTS[i], own_address(ep), 0, NULL, &request), MX_BAD_SEG_CNT);
        RETURNS(mx_irecv(ep, &one, COUNTS[i], 0, 0, NULL, &request), MX_BAD_SEG_CNT);
    }
}

static void answers(void)
{
    uint32_t count = 0, board = BOARD, number;
    uint8_t short_board = BOARD;
    uint64_t ids[256];
    char *labels;

    // Each of these succeeded without an answer, or read a null pointer.
    memset(ids, 0xff, sizeof ids);
    OK(mx_get_info(NULL, MX_NIC_COUNT, NULL, 0, &count, sizeof count));
    CHECK(count >= 1 && count < 255);
    OK(mx_get_info(NULL, MX_NIC_IDS, NULL, 0, ids, (count + 1) * 8));
    EQUAL(ids[count], 0);
    for (uint32_t i = 0; i < count; i++)
        CHECK(ids[i] != 0 && ids[i] >> 48 == 0);
    RETURNS(mx_get_info(NULL, MX_NIC_IDS, NULL, 0, ids, (count + 1) * 8 - 1), MX_BAD_INFO_LENGTH);
    OK(mx_get_info(NULL, MX_COUNTERS_COUNT, NULL, 0, &count, sizeof count));
    CHECK(count > 0);
    labels = memory(count * MX_MAX_STR_LEN);
    RETURNS(mx_get_info(NULL, MX_COUNTERS_LABELS, NULL, 0, labels, count * MX_MAX_STR_LEN - 1),
            MX_BAD_INFO_LENGTH);
    OK(mx_get_info(NULL, MX_COUNTERS_LABELS, NULL, 0, labels, count * MX_MAX_STR_LEN));
    for (uint32_t i = 0; i < count; i++)
        CHECK(labels[i * MX_MAX_STR_LEN] != '\0' &&
              memchr(labels + i * MX_MAX_STR_LEN, 0, MX_MAX_STR_LEN) != NULL);
    free(labels);
    OK(mx_get_info(NULL, MX_LINE_SPEED, &board, 4, &number, sizeof number));
    OK(mx_get_info(NULL, MX_LINE_SPEED, &short_board, 1, &number, sizeof number));
    EQUAL(number, MX_SPEED_OPEN_MX);
    for (int key = MX_NIC_COUNT; key <= MX_LINE_SPEED; key++) {
        RETURNS(mx_get_info(NULL, (mx_get_info_key_t)key, &board, 4, NULL, 4096), MX_BAD_INFO_VAL);
        RETURNS(mx_get_info(NULL, (mx_get_info_key_t)key, &board, 4, &number, 0),
                MX_BAD_INFO_LENGTH);
    }
}

static void closed(mx_endpoint_t ep)
{
    mx_endpoint_t neighbour = open_any();
    OK(mx_close_endpoint(neighbour));
    RETURNS(mx_close_endpoint(neighbour), MX_BAD_ENDPOINT);
    RETURNS(mx_close_endpoint(NULL), MX_BAD_ENDPOINT);
    RETURNS(mx_wakeup(neighbour), MX_BAD_ENDPOINT);
    OK(mx_progress(ep));
}

static void progression(mx_endpoint_t ep)
{
    // Both are idempotent.
    for (int i = 0; i < 2; i++)
        OK(mx_disable_progression(ep));
    for (int i = 0; i < 2; i++)
        OK(mx_reenable_progression(ep));
    char out = 1, in = 0;
    mx_request_t receive = receive_bytes(ep, &in, 1, 1, MX_MATCH_MASK_NONE);
    done(ep, send_bytes(ep, own_address(ep), &out, 1, 1));
    done(ep, receive);
    EQUAL(in, 1);
}

// Requests that are pending when their endpoint closes are dropped.
static void close_with_requests(void)
{
    static char bytes[1 << 20];
    mx_endpoint_t ep = open_any();
    for (uint64_t i = 0; i < 20; i++) {
        receive_bytes(ep, bytes, sizeof bytes, i, MX_MATCH_MASK_NONE);
        send_bytes(ep, own_address(ep), bytes, sizeof bytes, 100 + i);
        send_bytes(ep, own_address(ep), bytes, 8, 100 + i);
    }
    OK(mx_close_endpoint(ep));
}

static void open_again_and_again(void)
{
    for (int i = 0; i < 100; i++)
        OK(mx_close_endpoint(open_any()));
}

static void long_names(void)
{
    static char name[100000];
    uint64_t nic_id;
    memset(name, 'x', sizeof name - 1);
    RETURNS(mx_hostname_to_nic_id(name, &nic_id), MX_HOST_NOT_FOUND);
    RETURNS(mx_hostname_to_nic_id("", &nic_id), MX_HOST_NOT_FOUND);
    RETURNS(mx_hostname_to_nic_id("%s%n%s\xff", &nic_id), MX_HOST_NOT_FOUND);
}

static void unusable(mx_endpoint_t ep)
{
    char byte = 0;
    mx_request_t request = NULL;
    CHECK(mx_iput(ep, &byte, 1, own_address(ep), 0, NULL, &request) != MX_SUCCESS);
    CHECK(mx_iget(ep, &byte, 1, own_address(ep), 0, NULL, &request) != MX_SUCCESS);
    CHECK(request == NULL);
}

int main(void)
{
    mx_endpoint_t ep;

    texts();  // before anything else, too
    begin();
    ep = open_any();
    texts();
    counts(ep);
    answers();
    closed(ep);
    progression(ep);
    close_with_requests();
    open_again_and_again();
    long_names();
    unusable(ep);
    end(ep);
    texts();
    return 0;
}
