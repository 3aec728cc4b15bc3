// SPDX-License-Identifier: Apache-2.0
//
// Boards, names and numbers: each answer leads back to the question, and a truthful one to mx_get_info.
// Prints `nic=`, `endpoints=` and `hostname=` of board 0 for whoever runs it.

#include "check.h"

static uint64_t boards(void)
{
    uint64_t nic_id = 0, ids[256];
    uint32_t board = 77, count;

    OK(mx_board_number_to_nic_id(BOARD, &nic_id));
    CHECK(nic_id != 0 && nic_id >> 48 == 0);
    OK(mx_nic_id_to_board_number(nic_id, &board));
    EQUAL(board, BOARD);
    OK(mx_get_info(NULL, MX_NIC_COUNT, NULL, 0, &count, sizeof count));
    OK(mx_get_info(NULL, MX_NIC_IDS, NULL, 0, ids, sizeof ids));
    for (uint32_t i = 0; i < count; i++)
        if (ids[i] == nic_id)
            return nic_id;
    FAIL("board 0 is not in the list of boards");
}

static void names(uint64_t nic_id)
{
    char name[MX_MAX_HOSTNAME_LEN], host[256], full[300];
    uint64_t found = 0;

    memset(name, 'x', sizeof name);
    OK(mx_nic_id_to_hostname(nic_id, name));
    CHECK(memchr(name, 0, sizeof name) != NULL && name[0] != '\0');
    OK(mx_hostname_to_nic_id(name, &found));
    EQUAL(found, nic_id);
    // Programs for one host say one of these.
    OK(mx_hostname_to_nic_id((char *)"localhost", &found));
    EQUAL(found, nic_id);
    CHECK(gethostname(host, sizeof host) == 0);
    snprintf(full, sizeof full, "%s:0", host);
    OK(mx_hostname_to_nic_id(full, &found));
    EQUAL(found, nic_id);
    printf("hostname=%s\n", name);
}

static uint32_t number(mx_endpoint_t ep, mx_get_info_key_t key)
{
    uint32_t board = BOARD, value = 0xdeadbeef;
    OK(mx_get_info(ep, key, &board, sizeof board, &value, sizeof value));
    return value;
}

static void answers(mx_endpoint_t ep)
{
    uint32_t eager = number(ep, MX_COPY_SEND_MAX), small = number(ep, MX_PIO_SEND_MAX);
    char text[MX_MAX_STR_LEN];

    CHECK(small > 0 && small <= eager);
    EQUAL(number(ep, MX_PORT_COUNT), 1);
    EQUAL(number(ep, MX_NET_TYPE), MX_NET_ETHER);
    EQUAL(number(ep, MX_LINE_SPEED), MX_SPEED_OPEN_MX);
    CHECK(number(ep, MX_NATIVE_REQUESTS) > 0);
    number(ep, MX_NUMA_NODE);
    for (int key = MX_PRODUCT_CODE; key <= MX_SERIAL_NUMBER; key++) {
        memset(text, 'x', sizeof text);
        OK(mx_get_info(ep, (mx_get_info_key_t)key, NULL, 0, text, sizeof text));
        CHECK(memchr(text, 0, sizeof text) != NULL);
    }
    printf("endpoints=%u\n", number(ep, MX_MAX_NATIVE_ENDPOINTS));
}

// A counter moves when a message does.
static uint64_t sum_of_counters(mx_endpoint_t ep)
{
    uint32_t count = number(ep, MX_COUNTERS_COUNT), *values = memory(count * 4);
    uint64_t sum = 0;
    OK(mx_get_info(ep, MX_COUNTERS_VALUES, NULL, 0, values, count * 4));
    for (uint32_t i = 0; i < count; i++)
        sum += values[i];
    free(values);
    return sum;
}

static void counters(mx_endpoint_t ep)
{
    uint64_t before = sum_of_counters(ep);
    mx_endpoint_t neighbour = open_any();
    mx_endpoint_addr_t to = connect_to(ep, own_place(neighbour));
    char byte = 1;
    for (int i = 0; i < 100; i++) {
        mx_request_t receive = receive_bytes(neighbour, &byte, 1, 1, MX_MATCH_MASK_NONE);
        done(ep, send_bytes(ep, to, "x", 1, 1));
        done(neighbour, receive);
    }
    CHECK(sum_of_counters(ep) > before);
    OK(mx_close_endpoint(neighbour));
}

int main(void)
{
    uint64_t nic_id;
    mx_endpoint_t ep;

    begin();
    nic_id = boards();
    names(nic_id);
    ep = open_any();
    EQUAL(own_place(ep).nic_id, nic_id);
    answers(ep);
    counters(ep);
    printf("nic=%012llx\n", (unsigned long long)nic_id);
    end(ep);
    return 0;
}
