/* The thread's locale, set aside. */
#include "core/language.h"

void lh_language_begin(lh_language *language)
{
#ifdef __wasi__ /* a page has one language, and nobody to ask for another */
    *language = (lh_language){0};
#else
    language->plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    language->callers = language->plain ? uselocale(language->plain) : (locale_t)0;
#endif
}

void lh_language_end(lh_language *language)
{
#ifdef __wasi__
    (void)language;
#else
    if (!language->plain)
        return;
    uselocale(language->callers);
    freelocale(language->plain);
#endif
}
