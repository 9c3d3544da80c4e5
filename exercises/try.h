/* try.h: what stands where a body was taken out. */
#ifndef TRY_H
#define TRY_H

void not_written(const char *function);

#endif
