/* small_run.c: see small_run.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "tests/small_run.h"
#include "tests/suite.h"

const char *small_run_folder(void)
{
    char words[20000];
    const char *folder = scratch_folder();
    for (size_t i = 0; i < sizeof words; i++)
        words[i] = (char)(33 + (int)(200 * pow(lh_random_uniform(1, 0, i), 3)));
    write_bytes(scratch_path(folder, "text"), words, sizeof words);
    return folder;
}

void small_run_remove(const char *folder)
{
    char command[320];
    snprintf(command, sizeof command, "rm -rf '%.300s'", folder);
    ck_assert_int_eq(system(command), 0);
}

settings small_run(const char *folder)
{
    settings s;
    settings_default(&s);
    s.width = 32;
    s.layers = 3;
    s.heads = 4;
    s.kv_heads = 2;
    s.dim = 16;
    s.hidden = 64;
    s.context = 256;
    s.batch = 2;
    s.micro_batch = 2;
    s.topk = 32;
    s.tile_topk = 16;
    s.warmup = 5;
    s.probes = 0;
    strcpy(s.dense_layers, "0");
    snprintf(s.text, sizeof s.text, "%.200s/text", folder);
    return s;
}
