/* SPDX-License-Identifier: Apache-2.0
 *
 * The handle of an open board, a file descriptor.
 */

#ifndef MX_IO_H
#define MX_IO_H

#include "myriexpress.h"

typedef int mx_endpt_handle_t;

/* No handle. */
#define MX__INVALID_HANDLE (-1)

MX__ASSERT(handle_size, sizeof(mx_endpt_handle_t) == 4);

#endif
