// SPDX-License-Identifier: Apache-2.0
//
// A receive that the unexpected handler posts is for the message that it was called with, although
// others with the same match info, of the same peer and of other peers, have come by then. Messages
// have all lengths, and some are taken inside the handler.

#include "check.h"

enum { SENDERS = 4, MESSAGES = 200, LENGTH_MAX = 200000 };
static const uint64_t MATCH = 42;

// What each message begins with; the rest is a pattern.
struct head {
    uint32_t sender;
    uint32_t number;
};

struct sender {
    uint32_t number;
    struct place place;  // of the receiver
};

struct entry {
    uint32_t length;
    mx_endpoint_addr_t source;
    char bytes[];
};

static mx_endpoint_t ep;
static atomic_int handled, finished;

static uint32_t length_of(uint32_t sender, uint32_t number)
{
    static const uint32_t LENGTHS_USED[] = {8, 130, 415, 5155, 40, 70000, 1000, LENGTH_MAX};
    return LENGTHS_USED[(sender * 3 + number) % 8];
}

static void check_message(const struct entry *entry, uint32_t length)
{
    struct head head;
    memcpy(&head, entry->bytes, sizeof head);
    EQUAL(length, entry->length);
    EQUAL(length, length_of(head.sender, head.number));
    CHECK(holds(entry->bytes + sizeof head, length - sizeof head, head.number));
}

static mx_unexp_handler_action_t handle(void *context, mx_endpoint_addr_t source, uint64_t match,
                                        uint32_t length, void *data)
{
    struct entry *entry = malloc(sizeof *entry + length);
    mx_segment_t one = segment(entry->bytes, length);
    mx_request_t request;

    (void)context;
    EQUAL(match, MATCH);
    entry->length = length;
    entry->source = source;
    if (data != NULL && handled++ % 4 == 0) {
        memcpy(entry->bytes, data, length);
        check_message(entry, length);
        free(entry);
        finished++;
        return MX_RECV_FINISHED;
    }
    OK(mx_irecv(ep, &one, 1, match, MX_MATCH_MASK_NONE, entry, &request));
    return MX_RECV_CONTINUE;
}

static void receive_all(void)
{
    int received = 0;
    while (received + finished < SENDERS * MESSAGES) {
        mx_status_t status;
        uint32_t result;
        // The limit is for a message that the handler finished, which ends no wait.
        OK(mx_wait_any(ep, 10, 0, 0, &status, &result));
        if (!result)
            continue;
        struct entry *entry = status.context;
        EQUAL(status.code, MX_STATUS_SUCCESS);
        EQUAL(status.msg_length, entry->length);
        CHECK(same_address(status.source, entry->source));
        check_message(entry, status.xfer_length);
        free(entry);
        received++;
    }
}

static void *send_all(void *argument)
{
    const struct sender *own = argument;
    uint32_t sender = own->number;
    mx_endpoint_t from = open_any();
    mx_endpoint_addr_t to = connect_to(from, own->place);
    mx_request_t requests[MESSAGES];
    char *bytes[MESSAGES];

    for (uint32_t i = 0; i < MESSAGES; i++) {
        struct head head = {sender, i};
        uint32_t length = length_of(sender, i);
        bytes[i] = memory(length);
        memcpy(bytes[i], &head, sizeof head);
        fill(bytes[i] + sizeof head, length - sizeof head, i);
        requests[i] = send_bytes(from, to, bytes[i], length, MATCH);
    }
    for (uint32_t i = 0; i < MESSAGES; i++) {
        done(from, requests[i]);
        free(bytes[i]);
    }
    OK(mx_close_endpoint(from));
    return NULL;
}

int main(void)
{
    struct other other = split();
    struct place place;
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS];

    begin();
    if (!other.pid) {
        hear(&other, &place, sizeof place);
        for (uint32_t i = 0; i < SENDERS; i++) {
            senders[i].number = i;
            senders[i].place = place;
            CHECK(pthread_create(&threads[i], NULL, send_all, &senders[i]) == 0);
        }
        for (int i = 0; i < SENDERS; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
        OK(mx_finalize());
        return 0;
    }
    ep = open_any();
    OK(mx_register_unexp_handler(ep, handle, NULL));
    place = own_place(ep);
    tell(&other, &place, sizeof place);
    receive_all();
    end(ep);
    join_other(&other);
    return 0;
}
