// SPDX-License-Identifier: Apache-2.0
//
// What becomes of errors when a program says nothing. The argument says when one happens:
//
//   uninitialized   before mx_init: fatal, whatever the environment says
//   call            a call that fails
//   request         a request that fails
//   installed       before mx_init, with a handler of the program's own: not fatal
//
// Prints "alive" if it goes on. A fatal error ends it with code 255 and a text on stderr.

#include "check.h"

int main(int argc, char **argv)
{
    const char *when = argc > 1 ? argv[1] : "";
    mx_endpoint_t ep;
    mx_request_t receive, send;
    char bytes[2] = "";
    uint64_t nic_id;

    alarm(PATIENCE_S);
    if (strcmp(when, "installed") == 0)
        mx_set_error_handler(MX_ERRORS_RETURN);
    if (strcmp(when, "installed") == 0 || strcmp(when, "uninitialized") == 0) {
        RETURNS(mx_open_endpoint(BOARD, 0, KEY, NULL, 0, &ep), MX_NOT_INITIALIZED);
        puts("alive");
        return 0;
    }
    OK(mx_init());
    ep = open_any();
    if (strcmp(when, "call") == 0) {
        RETURNS(mx_board_number_to_nic_id(77, &nic_id), MX_BOARD_UNKNOWN);
    } else {
        receive = receive_bytes(ep, bytes, 1, 1, MX_MATCH_MASK_NONE);
        send = send_bytes(ep, own_address(ep), bytes, 2, 1);
        EQUAL(ended(ep, receive).code, MX_STATUS_TRUNCATED);
        EQUAL(ended(ep, send).code, MX_STATUS_TRUNCATED);
    }
    puts("alive");
    end(ep);
    return 0;
}
