// SPDX-License-Identifier: Apache-2.0
//
// Context ids: receives must fix the bits, and test_any, wait_any and probes may use any mask, one
// that says nothing of the context included.

#include "check.h"

enum { BITS = 4, SHIFT = 60 };

static uint64_t match(uint64_t context, uint64_t tag)
{
    return context << SHIFT | tag;
}

static mx_return_t open_with(uint8_t bits, uint8_t shift, mx_endpoint_t *ep)
{
    mx_param_t param;
    memset(&param, 0, sizeof param);
    param.key = MX_PARAM_CONTEXT_ID;
    param.val.context_id.bits = bits;
    param.val.context_id.shift = shift;
    return mx_open_endpoint(BOARD, MX_ANY_ENDPOINT, KEY, &param, 1, ep);
}

static void limits(void)
{
    mx_endpoint_t ep;
    RETURNS(open_with(17, 0, &ep), MX_BAD_PARAM_VAL);
    RETURNS(open_with(16, 49, &ep), MX_BAD_PARAM_VAL);
    RETURNS(open_with(1, 64, &ep), MX_BAD_PARAM_VAL);
    RETURNS(open_with(255, 255, &ep), MX_BAD_PARAM_VAL);
    OK(open_with(16, 48, &ep));
    OK(mx_close_endpoint(ep));
    OK(open_with(0, 0, &ep));
    OK(mx_close_endpoint(ep));
}

static void wildcards(mx_endpoint_t ep)
{
    char byte = 0;
    mx_segment_t one = segment(&byte, 1);
    mx_request_t request;
    uint64_t partial = UINT64_C(7) << SHIFT;

    RETURNS(mx_irecv(ep, &one, 1, 0, 0, NULL, &request), MX_BAD_MATCHING_FOR_CONTEXT_ID_MASK);
    RETURNS(mx_irecv(ep, &one, 1, 0, partial, NULL, &request),
            MX_BAD_MATCHING_FOR_CONTEXT_ID_MASK);
}

// One message in each context, in descending order; probes with every kind of mask see the first.
static void probes(mx_endpoint_t ep, mx_endpoint_addr_t self)
{
    mx_request_t sends[1 << BITS];
    mx_status_t status;
    uint32_t result;
    char byte = 1;

    for (uint64_t context = 1 << BITS; context-- > 0;)
        sends[context] = send_bytes(ep, self, &byte, 1, match(context, 5));
    OK(mx_probe(ep, MX_INFINITE, match(0, 5), MX_MATCH_MASK_NONE, &status, &result));
    EQUAL(result, 1);
    OK(mx_iprobe(ep, 0, 0, &status, &result));
    EQUAL(result, 1);
    EQUAL(status.match_info, match(15, 5));
    OK(mx_iprobe(ep, 5, 0xff, &status, &result));
    EQUAL(result, 1);
    OK(mx_iprobe(ep, match(3, 0), match(15, 0), &status, &result));
    EQUAL(result, 1);
    EQUAL(status.match_info, match(3, 5));
    // Three of the four bits: 6 or 7, of which 7 came first.
    OK(mx_iprobe(ep, match(6, 0), match(14, 0), &status, &result));
    EQUAL(result, 1);
    EQUAL(status.match_info, match(7, 5));

    for (uint64_t context = 0; context < 1 << BITS; context++) {
        mx_request_t receive = receive_bytes(ep, &byte, 1, match(context, 0), match(15, 0));
        EQUAL(done(ep, receive).match_info, match(context, 5));
        done(ep, sends[context]);
    }
}

static void completions(mx_endpoint_t ep, mx_endpoint_addr_t self)
{
    mx_status_t status;
    uint32_t result;
    char out = 1, in[1 << BITS];
    static const uint64_t MASKS[] = {0, 0xff, UINT64_C(15) << SHIFT, UINT64_C(2) << SHIFT};

    for (size_t i = 0; i < COUNT_OF(MASKS); i++)
        for (uint64_t context = 0; context < 1 << BITS; context++) {
            uint64_t both = match(context, 9);
            mx_request_t receive = receive_bytes(ep, &in[context], 1, both, MX_MATCH_MASK_NONE);
            (void)receive;
            OK(mx_wait_any(ep, 1, both & MASKS[i], MASKS[i], &status, &result));
            EQUAL(result, 0);
            mx_request_t send = send_bytes(ep, self, &out, 1, both);
            (void)send;
            // The send and the receive, in either order.
            for (int left = 2; left > 0; left--) {
                OK(mx_wait_any(ep, MX_INFINITE, both & MASKS[i], MASKS[i], &status, &result));
                EQUAL(result, 1);
                EQUAL(status.match_info, both);
            }
            OK(mx_test_any(ep, 0, 0, &status, &result));
            EQUAL(result, 0);
        }
}

int main(void)
{
    mx_endpoint_t ep;

    begin();
    limits();
    OK(open_with(BITS, SHIFT, &ep));
    wildcards(ep);
    probes(ep, own_address(ep));
    completions(ep, own_address(ep));
    end(ep);
    return 0;
}
