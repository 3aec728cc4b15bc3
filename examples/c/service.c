// SPDX-License-Identifier: Apache-2.0
//
// A service for many clients: it sends each text back in capital letters.
//
//     ./service serve endpoint [requests]     serves so many requests (default: for ever)
//     ./service ask host endpoint text        is a client
//
//     client                              service
//       |  request, match info m            |   unexpected handler: no receive is posted,
//       |---------------------------------->|   the handler is shown the message itself
//       |  reply, match info m | REPLY      |
//       |<----------------------------------|
//
// Clients choose m, so that they know their replies. A short request is dealt with inside the handler;
// of a long one only the announcement is there, so the handler posts a receive for it, and the main loop
// goes on with it when it is complete. Nobody has to be connected beforehand, and an idle service sleeps.

#include <ctype.h>
#include <mx_extensions.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY = 0, LENGTH_MAX = 1 << 20, NUMBER_MAX = 255, LIMIT_MS = 5000 };
static const uint64_t REPLY = UINT64_C(1) << 63;

// A request, and later its reply, in the same place.
struct message {
    uint32_t length;
    char bytes[];
};

static mx_endpoint_t endpoint;

static struct message *message_of(uint32_t length)
{
    struct message *message = malloc(sizeof *message + length);
    if (message == NULL) {
        fprintf(stderr, "no memory for %u bytes\n", length);
        exit(1);
    }
    message->length = length;
    return message;
}

static void reply(struct message *message, mx_endpoint_addr_t to, uint64_t match)
{
    mx_segment_t segment = {message->bytes, message->length};
    mx_request_t request;
    for (uint32_t i = 0; i < message->length; i++)
        message->bytes[i] = (char)toupper((unsigned char)message->bytes[i]);
    // The main loop finds the request by its completion, and the message by its context.
    mx_isend(endpoint, &segment, 1, to, match | REPLY, message, &request);
}

static mx_unexp_handler_action_t arrived(void *context, mx_endpoint_addr_t source, uint64_t match,
                                         uint32_t length, void *data)
{
    struct message *message;
    mx_segment_t segment;
    mx_request_t request;

    (void)context;
    if (length > LENGTH_MAX || match & REPLY)
        return MX_RECV_FINISHED;  // not for us: drop it
    message = message_of(length);
    if (data != NULL || length == 0) {
        if (length > 0)
            memcpy(message->bytes, data, length);
        reply(message, source, match);
        return MX_RECV_FINISHED;
    }
    segment.segment_ptr = message->bytes;
    segment.segment_length = length;
    mx_irecv(endpoint, &segment, 1, match, MX_MATCH_MASK_NONE, message, &request);
    return MX_RECV_CONTINUE;  // now there is a receive for it
}

static void serve(uint32_t number, long requests)
{
    mx_open_endpoint(0, number, KEY, NULL, 0, &endpoint);
    // A client that goes away is no reason for the service to end.
    mx_set_error_handler(MX_ERRORS_RETURN);
    mx_register_unexp_handler(endpoint, arrived, NULL);
    printf("serving at endpoint %u\n", number);
    fflush(stdout);
    for (long served = 0; requests == 0 || served < requests;) {
        mx_status_t status;
        uint32_t done;
        mx_wait_any(endpoint, MX_INFINITE, 0, 0, &status, &done);
        if (!done)
            continue;
        if (status.match_info & REPLY) {
            free(status.context);
            served++;
        } else if (status.code == MX_STATUS_SUCCESS) {
            reply(status.context, status.source, status.match_info);
        } else {
            free(status.context);  // its client went away
        }
    }
}

static void ask(char *host, uint32_t number, char *text)
{
    static char answer[LENGTH_MAX];
    const uint64_t match = 42;
    mx_segment_t out = {text, (uint32_t)strlen(text)}, in = {answer, sizeof answer};
    mx_request_t send, receive;
    mx_endpoint_addr_t service;
    mx_status_t status;
    uint64_t nic_id;
    uint32_t done;

    mx_open_endpoint(0, MX_ANY_ENDPOINT, KEY, NULL, 0, &endpoint);
    mx_hostname_to_nic_id(host, &nic_id);
    mx_connect(endpoint, nic_id, number, KEY, MX_INFINITE, &service);
    mx_irecv(endpoint, &in, 1, match | REPLY, MX_MATCH_MASK_NONE, NULL, &receive);
    mx_isend(endpoint, &out, 1, service, match, NULL, &send);
    mx_wait(endpoint, &receive, LIMIT_MS, &status, &done);
    if (!done) {
        fprintf(stderr, "service: no answer for %d ms; has the service ended?\n", LIMIT_MS);
        exit(1);
    }
    printf("%.*s\n", (int)status.xfer_length, answer);
    mx_wait(endpoint, &send, MX_INFINITE, &status, &done);
}

static void usage(void)
{
    fprintf(stderr, "usage: service serve endpoint [requests]\n"
                    "       service ask host endpoint text\n");
}

static uint32_t number_in(const char *text, uint32_t most)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || number > most) {
        usage();
        fprintf(stderr, "service: '%s' is not a number from 0 to %u\n", text, most);
        exit(2);
    }
    return (uint32_t)number;
}

int main(int argc, char **argv)
{
    if ((argc == 3 || argc == 4) && strcmp(argv[1], "serve") == 0) {
        uint32_t number = number_in(argv[2], NUMBER_MAX);
        uint32_t requests = argc > 3 ? number_in(argv[3], INT32_MAX) : 0;
        mx_init();
        serve(number, requests);
    } else if (argc == 5 && strcmp(argv[1], "ask") == 0) {
        uint32_t number = number_in(argv[3], NUMBER_MAX);
        mx_init();
        ask(argv[2], number, argv[4]);
    } else {
        usage();
        return 2;
    }
    mx_close_endpoint(endpoint);
    mx_finalize();
    return 0;
}
