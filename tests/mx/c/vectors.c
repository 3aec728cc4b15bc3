// SPDX-License-Identifier: Apache-2.0
//
// Scattered messages: ten segments, some of them empty, and every stretch of neighbours among them;
// from segments to one buffer, from one buffer to segments, and from segments to segments that are
// cut elsewhere. Bytes between and around the segments stay as they were.

#include "check.h"

enum { SEGMENTS = 10, GUARD = 16 };
static const uint32_t SIZES[SEGMENTS] = {7, 23, 61, 26, 0, 13456, 0, 11111, 333333, 3000000};

struct scattered {
    mx_segment_t segments[SEGMENTS];
    unsigned char *memory;
    size_t bytes;
};

// Each segment lies between guards.
static void scatter(struct scattered *scattered)
{
    size_t at = GUARD;
    scattered->bytes = GUARD;
    for (int i = 0; i < SEGMENTS; i++)
        scattered->bytes += SIZES[i] + GUARD;
    scattered->memory = memory(scattered->bytes);
    for (int i = 0; i < SEGMENTS; i++) {
        scattered->segments[i] = segment(scattered->memory + at, SIZES[i]);
        at += SIZES[i] + GUARD;
    }
    // An empty segment may point anywhere.
    scattered->segments[4].segment_ptr = NULL;
    scattered->segments[6].segment_ptr = (void *)1;
}

static void write_segments(struct scattered *scattered, int first, int count, const char *flat)
{
    for (int i = first; i < first + count; i++) {
        if (SIZES[i])
            memcpy(scattered->segments[i].segment_ptr, flat, SIZES[i]);
        flat += SIZES[i];
    }
}

// The segments hold the flat bytes, and nothing else changed.
static void check_segments(struct scattered *scattered, int first, int count, const char *flat)
{
    unsigned char *wanted = memory(scattered->bytes);
    size_t offset;
    for (int i = first; i < first + count; i++) {
        if (SIZES[i]) {
            offset = (size_t)((unsigned char *)scattered->segments[i].segment_ptr -
                              scattered->memory);
            memcpy(wanted + offset, flat, SIZES[i]);
        }
        flat += SIZES[i];
    }
    CHECK(memcmp(wanted, scattered->memory, scattered->bytes) == 0);
    memset(scattered->memory, 0xee, scattered->bytes);
    free(wanted);
}

static void check_flat(unsigned char *bytes, uint32_t length, const char *flat)
{
    CHECK(memcmp(bytes, flat, length) == 0);
    EQUAL(bytes[length], 0xee);
    memset(bytes, 0xee, length);
}

static mx_request_t send_list(mx_endpoint_t ep, mx_endpoint_addr_t to, mx_segment_t *list,
                              int count)
{
    mx_request_t request = NULL;
    mx_segment_t copy[SEGMENTS];
    memcpy(copy, list, (size_t)count * sizeof *list);
    OK(mx_isend(ep, copy, (uint32_t)count, to, 1, NULL, &request));
    memset(copy, 0xff, sizeof copy);  // the list is the library's no longer
    return request;
}

static mx_request_t receive_list(mx_endpoint_t ep, mx_segment_t *list, int count)
{
    mx_request_t request = NULL;
    mx_segment_t copy[SEGMENTS];
    memcpy(copy, list, (size_t)count * sizeof *list);
    OK(mx_irecv(ep, copy, (uint32_t)count, 1, MX_MATCH_MASK_NONE, NULL, &request));
    memset(copy, 0xff, sizeof copy);
    return request;
}

// Where messages are sent, where they arrive, and how the one calls the other.
struct route {
    mx_endpoint_t from;
    mx_endpoint_t ep;
    mx_endpoint_addr_t to;
};

// Both endpoints are looked at in turn, so that neither depends on the progression thread.
static void finish(const struct route *route, mx_request_t receive, mx_request_t send,
                   uint32_t length)
{
    mx_status_t sent, received;
    uint32_t sent_result = 0, received_result = 0;
    while (!sent_result || !received_result) {
        if (!sent_result)
            OK(mx_test(route->from, &send, &sent, &sent_result));
        if (!received_result)
            OK(mx_test(route->ep, &receive, &received, &received_result));
    }
    EQUAL(sent.code, MX_STATUS_SUCCESS);
    EQUAL(received.code, MX_STATUS_SUCCESS);
    EQUAL(received.msg_length, length);
    EQUAL(received.xfer_length, length);
}

static void stretch(const struct route *route, int first, int count, char *flat)
{
    static struct scattered out, in;
    static unsigned char *buffer;
    mx_request_t receive, send;
    mx_segment_t one, halves[2];
    uint32_t length = 0;

    if (!out.memory) {
        scatter(&out);
        scatter(&in);
        buffer = memory(4000000);
    }
    for (int i = first; i < first + count; i++)
        length += SIZES[i];
    write_segments(&out, first, count, flat);

    one = segment(buffer, length);
    receive = receive_list(route->ep, &one, 1);
    send = send_list(route->from, route->to, out.segments + first, count);
    finish(route, receive, send, length);
    check_flat(buffer, length, flat);

    one = segment(flat, length);
    send = send_list(route->from, route->to, &one, 1);
    receive = receive_list(route->ep, in.segments + first, count);
    finish(route, receive, send, length);
    check_segments(&in, first, count, flat);

    halves[0] = segment(buffer, length / 3);
    halves[1] = segment(buffer + length / 3, length - length / 3);
    receive = receive_list(route->ep, halves, 2);
    send = send_list(route->from, route->to, out.segments + first, count);
    finish(route, receive, send, length);
    check_flat(buffer, length, flat);
}

// The largest number of segments, of a byte each.
static void as_many_as_allowed(const struct route *route)
{
    unsigned char out[MX_MAX_SEGMENTS], in[2 * MX_MAX_SEGMENTS];
    mx_segment_t outs[MX_MAX_SEGMENTS], ins[MX_MAX_SEGMENTS];
    mx_request_t send, receive;

    fill(out, sizeof out, 1);
    memset(in, 0xee, sizeof in);
    for (int i = 0; i < MX_MAX_SEGMENTS; i++) {
        outs[i] = segment(&out[i], 1);
        ins[i] = segment(&in[2 * i], 1);
    }
    OK(mx_irecv(route->ep, ins, MX_MAX_SEGMENTS, 1, MX_MATCH_MASK_NONE, NULL, &receive));
    OK(mx_isend(route->from, outs, MX_MAX_SEGMENTS, route->to, 1, NULL, &send));
    finish(route, receive, send, MX_MAX_SEGMENTS);
    for (int i = 0; i < MX_MAX_SEGMENTS; i++) {
        EQUAL(in[2 * i], out[i]);
        EQUAL(in[2 * i + 1], 0xee);
    }
}

int main(void)
{
    uint32_t total = 0;
    char *flat;
    struct route routes[2];

    begin();
    routes[0].ep = routes[0].from = routes[1].ep = open_any();
    routes[0].to = own_address(routes[0].ep);
    routes[1].from = open_any();
    routes[1].to = connect_to(routes[1].from, own_place(routes[1].ep));
    for (int i = 0; i < SEGMENTS; i++)
        total += SIZES[i];
    flat = memory(total);
    fill(flat, total, 77);
    for (int i = 0; i < 2; i++) {
        for (int first = 0; first < SEGMENTS; first++)
            for (int count = 1; first + count <= SEGMENTS; count++)
                stretch(&routes[i], first, count, flat);
        as_many_as_allowed(&routes[i]);
    }
    OK(mx_close_endpoint(routes[1].from));
    end(routes[0].ep);
    return 0;
}
