/* The native build's hashes: `play_hashes COUNT` prints play_case(1) ... play_case(COUNT), a line each. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "docs/play/play.h"

int main(int argc, char **argv)
{
    const long count = argc == 2 ? strtol(argv[1], NULL, 10) : 0;
    if (count < 1) {
        fprintf(stderr, "play_hashes: COUNT is %s, wanted at least 1\n", argc == 2 ? argv[1] : "missing");
        return 2;
    }
    for (long i = 1; i <= count; i++)
        printf("%016" PRIx64 "\n", play_case((uint32_t)i));
    return 0;
}
