// SPDX-License-Identifier: Apache-2.0
//
// Liars: endpoints that write what they like into the memory that they own. Their numbers come on stdin,
// one after the other. With each, messages are under way in both directions when it begins; all of them
// must end, with a failure, while messages with an honest peer go on, and arrive whole. Prints the number
// of the endpoint, and one line for each liar.

#include "check.h"

enum { LARGE = 1 << 20, EAGER = 60000, EAGERS = 40, ROUNDS_AFTER = 200 };
enum { FROM_LIAR = 7, TO_LIAR = 8 };
static const uint64_t HONEST = UINT64_C(0xfedcba9876543210);

static void one_round(mx_endpoint_t ep, mx_endpoint_addr_t honest, uint64_t round)
{
    static char in[70000], out[70000];
    static const uint32_t lengths[] = {8, 1000, 30000, 70000};
    uint32_t length = lengths[round % COUNT_OF(lengths)];
    mx_request_t receive = receive_bytes(ep, in, sizeof in, HONEST, MX_MATCH_MASK_NONE), send;

    fill(out, length, round);
    send = send_bytes(ep, honest, out, length, HONEST);
    EQUAL(done(ep, receive).xfer_length, length);
    CHECK(holds(in, length, round));
    done(ep, send);
}

// Sends everything back until an empty message comes.
static void echo(mx_endpoint_t ep, mx_endpoint_addr_t peer)
{
    static char bytes[70000];
    uint32_t length;
    do {
        mx_request_t receive = receive_bytes(ep, bytes, sizeof bytes, HONEST, MX_MATCH_MASK_NONE);
        length = done(ep, receive).xfer_length;
        done(ep, send_bytes(ep, peer, bytes, length, HONEST));
    } while (length > 0);
}

static uint64_t meet_liar(mx_endpoint_t ep, mx_endpoint_addr_t honest, uint32_t id, uint64_t round)
{
    static char large[LARGE], in[LARGE];
    struct place place = own_place(ep);
    mx_endpoint_addr_t liar;
    mx_request_t requests[EAGERS + 3];
    uint32_t count = 0, failed = 0, codes = 0;

    place.endpoint_id = id;
    liar = connect_to(ep, place);
    // It has begun a message for this one and will never finish it.
    requests[count++] = receive_bytes(ep, in, sizeof in, FROM_LIAR, MX_MATCH_MASK_NONE);
    requests[count++] = send_bytes(ep, liar, large, LARGE, TO_LIAR);
    requests[count++] = send_synchronously(ep, liar, large, 1, TO_LIAR);
    // More than it may have without receiving anything: the last ones wait here.
    while (count < COUNT_OF(requests))
        requests[count++] = send_bytes(ep, liar, large, EAGER, TO_LIAR);
    for (uint32_t open = count; open > 0;) {
        one_round(ep, honest, round++);
        for (uint32_t i = 0; i < count; i++) {
            mx_status_t status;
            uint32_t result;
            if (requests[i] == NULL)
                continue;
            OK(mx_test(ep, &requests[i], &status, &result));
            if (!result)
                continue;
            open--;
            failed += status.code != MX_STATUS_SUCCESS;
            codes |= 1u << status.code;
            if (i < 3 && status.code == MX_STATUS_SUCCESS)
                FAIL("request %u with the liar ended well", i);
        }
    }
    // The first eager messages had left already.
    CHECK(failed > 3 && failed < count);
    printf("failed=%u codes=%x\n", failed, codes);
    fflush(stdout);
    // The old address is dead, and everything else works.
    if (ended(ep, send_synchronously(ep, liar, large, 1, TO_LIAR)).code == MX_STATUS_SUCCESS)
        FAIL("a liar that is gone has received a message");
    for (int i = 0; i < ROUNDS_AFTER; i++)
        one_round(ep, honest, round++);
    return round;
}

int main(void)
{
    struct other other = split();
    mx_endpoint_t ep;
    mx_endpoint_addr_t honest;
    uint64_t round = 0;
    unsigned id;

    begin();
    ep = open_any();
    honest = meet(&other, ep);
    if (!other.pid) {
        echo(ep, honest);
        end(ep);
        return 0;
    }
    printf("endpoint=%u\n", own_place(ep).endpoint_id);
    fflush(stdout);
    while (scanf("%u", &id) == 1)
        round = meet_liar(ep, honest, id, round);
    {
        mx_request_t receive = receive_bytes(ep, NULL, 0, HONEST, MX_MATCH_MASK_NONE);
        done(ep, send_bytes(ep, honest, NULL, 0, HONEST));
        done(ep, receive);
    }
    end(ep);
    join_other(&other);
    return 0;
}
