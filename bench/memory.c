/* Peak resident memory of a stretch of work, as Linux counts it: independent of the library's own count. */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"

static size_t at_start;

/* A line of /proc/self/status in bytes; 0 where there is none. */
static size_t status_bytes(const char *key)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), ": %llu kB", &kib) == 1)
            break;
    }
    if (file)
        fclose(file);
    return (size_t)kib * 1024;
}

void bench_peak_start(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    at_start = 0;
    if (!file)
        return;
    const int reset = fputs("5", file) >= 0; /* proc(5): 5 resets the peak */
    if (fclose(file) == 0 && reset)
        at_start = status_bytes("VmRSS");
}

size_t bench_peak(void)
{
    const size_t peak = status_bytes("VmHWM");
    return at_start && peak > at_start ? peak - at_start : 0;
}
