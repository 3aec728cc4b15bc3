/* SPDX-License-Identifier: Apache-2.0 */
/* What the test programs share: a check that says where it failed, and one wait. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <diolkos.h>

#define CHECK(condition) check_at((condition) != 0, #condition, __FILE__, __LINE__)
#define CALL(call) code_at((call), DIO_SUCCESS, #call, __FILE__, __LINE__)
#define EXPECT(code, call) code_at((call), (code), #call, __FILE__, __LINE__)
#define PATIENCE_MS 30000

static void check_at(int fine, const char *text, const char *file, int line)
{
    if (!fine) {
        fprintf(stderr, "%s:%d: %s\n", file, line, text);
        exit(1);
    }
}

static void code_at(int code, int expected, const char *text, const char *file, int line)
{
    if (code != expected) {
        fprintf(stderr, "%s:%d: %s: %d (%s), not %d: %s\n", file, line, text, code,
                dio_strerror(code), expected, dio_error_text());
        exit(1);
    }
}

/* Waits for a request, which must end with this code. */
static dio_status finish(dio_endpoint *endpoint, dio_request request, int code)
{
    dio_status status;
    int result;
    do {
        result = dio_wait(endpoint, request, PATIENCE_MS, &status);
    } while (result == DIO_INTERRUPTED);
    EXPECT(DIO_SUCCESS, result);
    EXPECT(code, status.code);
    return status;
}

#endif
