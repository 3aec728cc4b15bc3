// SPDX-License-Identifier: Apache-2.0
//
// The unexpected handler: a message that it finishes, one that it leaves, one that it posts a receive
// for, the data that it sees, and what it must not do.

#include "check.h"

enum { FINISH = 1, CONTINUE = 2, POST = 3, CLOSE = 4, STOP = 5 };

struct seen {
    mx_endpoint_t ep;
    mx_endpoint_addr_t peer;
    atomic_int calls;
    int expected_calls;
    uint64_t match;
    uint32_t length;
    int data_was_there;
    char *posted_bytes;
    mx_request_t posted;
    mx_return_t close_result;
};

static mx_unexp_handler_action_t handle(void *context, mx_endpoint_addr_t source, uint64_t match,
                                        uint32_t length, void *data)
{
    struct seen *seen = context;
    after_signals();
    CHECK(same_address(source, seen->peer));
    seen->match = match;
    seen->length = length;
    seen->data_was_there = data != NULL;
    if (data != NULL)
        CHECK(holds(data, length, match));
    if ((match & 0xff) == POST)
        seen->posted = receive_bytes(seen->ep, seen->posted_bytes, length, match,
                                     MX_MATCH_MASK_NONE);
    if ((match & 0xff) == CLOSE)
        seen->close_result = mx_close_endpoint(seen->ep);
    seen->calls++;
    return (match & 0xff) == FINISH ? MX_RECV_FINISHED : MX_RECV_CONTINUE;
}

static const uint32_t SIZES[] = {0, 13, 128, 4000, 100000, 1 << 20};

static uint64_t tag(uint32_t length, int synchronous, int kind)
{
    return (uint64_t)length << 16 | (uint64_t)synchronous << 8 | (uint64_t)kind;
}

static void await_call(struct seen *seen)
{
    seen->expected_calls++;
    while (seen->calls < seen->expected_calls)
        OK(mx_progress(seen->ep));
    EQUAL(seen->calls, seen->expected_calls);
}

static void expect_finished(struct seen *seen, uint32_t length, int synchronous)
{
    mx_status_t status;
    uint32_t result = 1;
    await_call(seen);
    EQUAL(seen->match, tag(length, synchronous, FINISH));
    EQUAL(seen->length, length);
    // What fits one packet is there whole; what is announced only is not.
    if (length <= 128 && length > 0 && !synchronous)
        CHECK(seen->data_was_there);
    OK(mx_iprobe(seen->ep, 0, 0, &status, &result));
    EQUAL(result, 0);
}

static void receive_left(struct seen *seen, uint32_t length, int synchronous)
{
    mx_status_t status;
    uint32_t result = 0;
    uint64_t match = tag(length, synchronous, CONTINUE);
    char *bytes = memory(length);
    OK(mx_probe(seen->ep, MX_INFINITE, match, MX_MATCH_MASK_NONE, &status, &result));
    EQUAL(result, 1);
    EQUAL(status.msg_length, length);
    await_call(seen);
    EQUAL(seen->match, match);
    status = done(seen->ep, receive_bytes(seen->ep, bytes, length, match, MX_MATCH_MASK_NONE));
    EQUAL(status.xfer_length, length);
    CHECK(holds(bytes, length, match));
    free(bytes);
}

static void receive_posted(struct seen *seen, uint32_t length)
{
    mx_status_t status;
    // The receive is posted in the handler, so the handler is what has to be waited for.
    await_call(seen);
    status = done(seen->ep, seen->posted);
    EQUAL(status.xfer_length, length);
    CHECK(holds(seen->posted_bytes, length, seen->match));
    free(seen->posted_bytes);
}

static void receiver(const struct other *other, mx_endpoint_t ep, mx_endpoint_addr_t peer)
{
    static struct seen seen;
    char bytes[8];
    seen.ep = ep;
    seen.peer = peer;
    OK(mx_register_unexp_handler(ep, handle, &seen));
    signal_other(other);
    for (size_t i = 0; i < COUNT_OF(SIZES); i++)
        for (int synchronous = 0; synchronous < 2; synchronous++) {
            expect_finished(&seen, SIZES[i], synchronous);
            signal_other(other);
            receive_left(&seen, SIZES[i], synchronous);
            seen.posted_bytes = memory(SIZES[i]);
            signal_other(other);
            receive_posted(&seen, SIZES[i]);
            signal_other(other);
        }
    await_call(&seen);
    EQUAL(seen.close_result, MX_CLOSE_IN_HANDLER);
    done(ep, receive_bytes(ep, bytes, sizeof bytes, CLOSE, MX_MATCH_MASK_NONE));
    // Without a handler nobody is called.
    OK(mx_register_unexp_handler(ep, NULL, NULL));
    signal_other(other);
    done(ep, receive_bytes(ep, bytes, sizeof bytes, STOP, MX_MATCH_MASK_NONE));
    EQUAL(seen.calls, seen.expected_calls);
}

static mx_status_t send_tagged(mx_endpoint_t ep, mx_endpoint_addr_t peer, uint32_t length,
                               int synchronous, uint64_t match)
{
    char *bytes = memory(length);
    mx_status_t status;
    fill(bytes, length, match);
    status = ended(ep, synchronous ? send_synchronously(ep, peer, bytes, length, match)
                                   : send_bytes(ep, peer, bytes, length, match));
    free(bytes);
    return status;
}

static void sender(const struct other *other, mx_endpoint_t ep, mx_endpoint_addr_t peer)
{
    mx_status_t status;
    await_other(other);
    for (size_t i = 0; i < COUNT_OF(SIZES); i++)
        for (int synchronous = 0; synchronous < 2; synchronous++) {
            uint32_t length = SIZES[i];
            status = send_tagged(ep, peer, length, synchronous, tag(length, synchronous, FINISH));
            if (length >= 100000 || (synchronous && length)) {
                EQUAL(status.code, MX_STATUS_TRUNCATED);
                EQUAL(status.msg_length, length);
                EQUAL(status.xfer_length, 0);
            } else {
                EQUAL(status.code, MX_STATUS_SUCCESS);
            }
            for (int kind = CONTINUE; kind <= POST; kind++) {
                await_other(other);
                status = send_tagged(ep, peer, length, synchronous,
                                     tag(length, synchronous, kind));
                EQUAL(status.code, MX_STATUS_SUCCESS);
            }
            await_other(other);
        }
    EQUAL(send_tagged(ep, peer, 0, 0, CLOSE).code, MX_STATUS_SUCCESS);
    await_other(other);
    EQUAL(send_tagged(ep, peer, 0, 0, STOP).code, MX_STATUS_SUCCESS);
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
        sender(&other, ep, peer);
    else
        receiver(&other, ep, peer);
    signal_other(&other);
    await_other(&other);
    end(ep);
    if (other.pid)
        join_other(&other);
    return 0;
}
