// SPDX-License-Identifier: Apache-2.0
//
// Messages that come before their receive: probes that miss and find, order, and contents.
// With an argument, the same with context ids.

#include "check.h"

static uint64_t tagged(uint64_t tag)
{
    return UINT64_C(5) << 40 | tag;
}

static void expect_none(mx_endpoint_t ep, uint64_t match, uint64_t mask)
{
    mx_status_t status;
    uint32_t result = 7;
    OK(mx_iprobe(ep, match, mask, &status, &result));
    EQUAL(result, 0);
}

static void one_length(mx_endpoint_t ep, mx_endpoint_addr_t to, uint32_t length)
{
    char *out = memory(length), *in = memory(length);
    mx_request_t send, other, receive;
    mx_status_t status;
    uint32_t result = 0;

    fill(out, length, 1);
    expect_none(ep, tagged(1), MX_MATCH_MASK_NONE);
    send = send_bytes(ep, to, out, length, tagged(1));
    other = send_bytes(ep, to, out, length, tagged(2));
    OK(mx_probe(ep, MX_INFINITE, tagged(2), MX_MATCH_MASK_NONE, &status, &result));
    EQUAL(result, 1);
    EQUAL(status.match_info, tagged(2));
    EQUAL(status.msg_length, length);
    CHECK(same_address(status.source, own_address(ep)));
    // It came after the first, which is there too; and probing took neither.
    OK(mx_iprobe(ep, 0, 0, &status, &result));
    EQUAL(result, 1);
    EQUAL(status.match_info, tagged(1));
    expect_none(ep, tagged(3), MX_MATCH_MASK_NONE);

    for (uint64_t tag = 1; tag <= 2; tag++) {
        memset(in, 0, length);
        receive = receive_bytes(ep, in, length, tagged(0), UINT64_C(0xffff) << 40);
        status = done(ep, receive);
        EQUAL(status.match_info, tagged(tag));
        EQUAL(status.xfer_length, length);
        CHECK(holds(in, length, 1));
    }
    expect_none(ep, 0, 0);
    done(ep, send);
    done(ep, other);
    free(out);
    free(in);
}

int main(int argc, char **argv)
{
    mx_endpoint_t ep;
    mx_param_t contexts = {MX_PARAM_CONTEXT_ID, {NULL}};

    (void)argv;
    begin();
    contexts.val.context_id.bits = 10;
    contexts.val.context_id.shift = 40;
    OK(mx_open_endpoint(BOARD, MX_ANY_ENDPOINT, KEY, &contexts, argc > 1, &ep));
    for (size_t i = 0; i < COUNT_OF(LENGTHS); i++)
        one_length(ep, own_address(ep), LENGTHS[i]);
    end(ep);
    return 0;
}
