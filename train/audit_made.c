/* Settings, text, versions, machine and date in JSON. */
#include "train/audit_made.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "bench/blas.h"
#include "core/base.h"
#include "core/json.h"

json_t *settings_json(const settings *s)
{
    json_t *all = json_object();
    for (int i = 0; i < setting_count; i++) {
        char text[SETTING_TEXT];
        setting_print(s, &setting_table[i], text);
        all = lh_json_set(all, setting_table[i].name, json_string(lh_clean(text)));
    }
    return all;
}

json_t *text_json(const settings *s, const corpus *t)
{
    char path[SETTING_TEXT]; /* file names need not be UTF-8 */
    memcpy(path, s->text, sizeof path);
    return json_pack("{s:s s:s s:I s:I s:I s:I}", "path", lh_clean(path), "sha256", t->sha256, "bytes",
                     (json_int_t)t->size, "learnt_from", (json_int_t)t->train, "files", (json_int_t)t->files,
                     "passed_over", (json_int_t)t->passed);
}

/* The processor's name, as Linux has it. */
static void name_processor(char *name, size_t size)
{
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(name, size, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(name, size, "%s", colon + 2);
        break;
    }
    if (file)
        fclose(file);
}

json_t *made_json(const char *products)
{
    char processor[128], date[32] = "";
    struct utsname host = {.nodename = "unknown"};
    struct tm utc;
    const time_t now = time(NULL);
    name_processor(processor, sizeof processor);
    uname(&host);
    if (gmtime_r(&now, &utc))
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return json_pack("{s:s s:s s:s? s:s s:s s:s}", "program", "lighthouse " LH_VERSION, "compiler",
                     __VERSION__, "products", products && products[0] ? products : blas_version(), "host",
                     host.nodename, "processor", processor, "date", date);
}
