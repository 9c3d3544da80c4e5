/* verify_large.h: `lighthouse verify --large`. */
#ifndef LH_CLI_VERIFY_LARGE_H
#define LH_CLI_VERIFY_LARGE_H

#include "verify/verify.h"

/* One layer of so many tokens on each backend of the wish but the reference, in its dtypes (bf16 unless said), judged by
 * rows and printed. *failed becomes true where one is not right. LH_INVALID when nothing was to be compared. */
lh_status cli_verify_large(const verify_wish *wish, int64_t tokens, bool *failed, lh_error *error);

#endif
