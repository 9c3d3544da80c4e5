/* The thread's locale, set aside. */
#include "core/language.h"

void lh_language_begin(lh_language *language)
{
    language->plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    language->callers = language->plain ? uselocale(language->plain) : (locale_t)0;
}

void lh_language_end(lh_language *language)
{
    if (!language->plain)
        return;
    uselocale(language->callers);
    freelocale(language->plain);
}
