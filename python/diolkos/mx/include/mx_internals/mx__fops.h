/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening a board without opening an endpoint, for mx__get_mapper_state.
 */

#ifndef MX__FOPS_H
#define MX__FOPS_H

#include "../mx_io.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Gives a handle for a board. */
mx_return_t mx_open_board(int board, mx_endpt_handle_t *handle);

#ifdef __cplusplus
}
#endif

#endif
