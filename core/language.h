/* language.h: numbers with a point, whatever language the caller's thread speaks. */
#ifndef LH_LANGUAGE_H
#define LH_LANGUAGE_H

#include <locale.h>

typedef struct lh_language {
    locale_t plain, callers;
} lh_language;

/* Between the two, this thread prints and reads numbers as C does; other threads as they did. Neither fails: without
 * memory for a locale the caller's stays. */
void lh_language_begin(lh_language *language);
void lh_language_end(lh_language *language);

#endif
