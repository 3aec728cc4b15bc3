// SPDX-License-Identifier: Apache-2.0
//
// Receives that are shorter than their message: what each side is told, to the byte.

#include "check.h"

static void receive_half(mx_endpoint_t ep, uint32_t length, uint32_t room)
{
    unsigned char *bytes = memory(length);
    mx_status_t status = ended(ep, receive_bytes(ep, bytes, room, length, MX_MATCH_MASK_NONE));
    EQUAL(status.code, room < length ? MX_STATUS_TRUNCATED : MX_STATUS_SUCCESS);
    EQUAL(status.msg_length, length);
    EQUAL(status.xfer_length, room < length ? room : length);
    CHECK(holds(bytes, status.xfer_length, length));
    for (uint32_t i = status.xfer_length; i < length; i++)
        EQUAL(bytes[i], 0xee);
    free(bytes);
}

static void expect_truncated(mx_status_t status, uint32_t length, uint32_t room)
{
    EQUAL(status.code, MX_STATUS_TRUNCATED);
    EQUAL(status.msg_length, length);
    EQUAL(status.xfer_length, room);
}

static void expect_whole(mx_status_t status, uint32_t length)
{
    EQUAL(status.code, MX_STATUS_SUCCESS);
    EQUAL(status.msg_length, length);
    EQUAL(status.xfer_length, length);
}

static const uint32_t EAGER[] = {1, 32, 100, 4000, 32768};
static const uint32_t LARGE[] = {200000, 1 << 20, 3333333};

static void sender(mx_endpoint_t ep, mx_endpoint_addr_t peer)
{
    for (size_t i = 0; i < COUNT_OF(EAGER); i++) {
        uint32_t length = EAGER[i];
        char *bytes = memory(length);
        fill(bytes, length, length);
        // An eager sender never learns of it; a synchronous one does.
        expect_whole(ended(ep, send_bytes(ep, peer, bytes, length, length)), length);
        expect_truncated(ended(ep, send_synchronously(ep, peer, bytes, length, length)), length,
                         length / 2);
        free(bytes);
    }
    for (size_t i = 0; i < COUNT_OF(LARGE); i++) {
        uint32_t length = LARGE[i];
        char *bytes = memory(length);
        fill(bytes, length, length);
        expect_truncated(ended(ep, send_bytes(ep, peer, bytes, length, length)), length,
                         length / 2);
        expect_truncated(ended(ep, send_synchronously(ep, peer, bytes, length, length)), length, 0);
        expect_whole(ended(ep, send_synchronously(ep, peer, bytes, length, length)), length);
        free(bytes);
    }
}

static void receiver(mx_endpoint_t ep)
{
    for (size_t i = 0; i < COUNT_OF(EAGER); i++) {
        receive_half(ep, EAGER[i], EAGER[i] / 2);
        receive_half(ep, EAGER[i], EAGER[i] / 2);
    }
    for (size_t i = 0; i < COUNT_OF(LARGE); i++) {
        receive_half(ep, LARGE[i], LARGE[i] / 2);
        receive_half(ep, LARGE[i], 0);
        receive_half(ep, LARGE[i], LARGE[i]);
    }
}

// A message to oneself is synchronous, whatever its length.
static void to_self(mx_endpoint_t ep)
{
    for (size_t i = 0; i < COUNT_OF(EAGER); i++) {
        char bytes[32768];
        mx_request_t send;
        fill(bytes, EAGER[i], EAGER[i]);
        send = send_bytes(ep, own_address(ep), bytes, EAGER[i], EAGER[i]);
        receive_half(ep, EAGER[i], EAGER[i] / 2);
        expect_truncated(ended(ep, send), EAGER[i], EAGER[i] / 2);
    }
}

int main(void)
{
    struct other other = split();
    mx_endpoint_t ep;
    mx_endpoint_addr_t peer;

    begin();
    ep = open_any();
    peer = meet(&other, ep);
    if (other.pid)
        sender(ep, peer);
    else
        receiver(ep);
    to_self(ep);
    signal_other(&other);
    await_other(&other);
    end(ep);
    if (other.pid)
        join_other(&other);
    return 0;
}
