/* Pictures: marked, readable on any page, no folder's name in them, and a line where nothing draws them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/suite.h"
#include "train/plot.h"

static const char *folder;

static void write_log(int lighthouse, int dense, bool held_out)
{
    FILE *log = fopen(scratch_path(folder, "log.jsonl"), "w");
    ck_assert_ptr_nonnull(log);
    for (int i = 1; i <= lighthouse + dense; i++) {
        fprintf(
            log,
            "{\"kind\":\"step\",\"step\":%d,\"stage\":\"%s\",\"loss\":%g,\"norm\":1,\"rate\":1,\"tokens\":1000,"
            "\"seconds\":0.5,\"attention\":[],\"outside\":[],\"rest\":0}\n",
            i, i <= lighthouse ? "lighthouse" : "dense", 5.0 / i);
        if (held_out && i % 10 == 0)
            fprintf(log, "{\"kind\":\"held-out\",\"step\":%d,\"loss\":%g,\"seconds\":1}\n", i, 5.5 / i);
    }
    fclose(log);
}

static char *draw(const char *title)
{
    static char text[1 << 20];
    char path[512];
    lh_error error = {LH_OK, ""};
    const plot_run run = {folder, title, 0};
    snprintf(path, sizeof path, "%s/curves.svg", folder);
    ck_assert_msg(plot_write(&run, 1, path, &error) == LH_OK, "%s", error.text);
    text[read_bytes(path, text, sizeof text - 1)] = '\0';
    ck_assert_ptr_null(strstr(text, "nan"));
    ck_assert_ptr_null(strstr(text, "inf"));
    ck_assert_ptr_null(strstr(text, folder));
    ck_assert_ptr_nonnull(strstr(text, "</svg>"));
    return text;
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (; (text = strstr(text, what)); text++)
        n++;
    return n;
}

START_TEST(a_run_is_drawn_with_its_switch)
{
    folder = scratch_folder();
    write_log(700, 300, true);
    const char *svg = draw("this run");
    ck_assert_ptr_nonnull(strstr(svg, "prefers-color-scheme:dark"));
    ck_assert_ptr_nonnull(strstr(svg, "mean over about 25 steps"));
    ck_assert_ptr_nonnull(strstr(svg, "held-out loss, dense attention"));
    ck_assert_int_eq(count(svg, "switch to dense"), 3);
    ck_assert_int_eq(count(svg, "<use xlink:href='#gpPt5' transform"),
                     201); /* in two panels of losses, and a key */
    ck_assert_int_lt((int)strlen(svg), 80000);
    remove_folder(folder);
}
END_TEST

START_TEST(short_runs_and_empty_logs_are_drawn_too)
{
    folder = scratch_folder();
    const int steps[][2] = {{0, 0}, {1, 0}, {0, 1}, {1, 1}, {0, 3}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        write_log(steps[i][0], steps[i][1], false);
        const char *svg = draw("this run");
        ck_assert_int_eq(count(svg, "switch to dense"), steps[i][0] && steps[i][1] ? 3 : 0);
    }
    remove_folder(folder);
}
END_TEST

/* Steps have 1,000 tokens and half a second: axes count in what their ends have a few of. */
START_TEST(axes_count_in_fitting_units)
{
    static const struct {
        int steps;
        const char *tokens, *time;
    } runs[] = {{1, ">tokens<", "seconds of training"},
                {100, "thousand tokens", "seconds of training"},
                {1000, "million tokens", "minutes of training"},
                {15000, "million tokens", "hours of training"}};
    folder = scratch_folder();
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        write_log(runs[i].steps, 0, false);
        const char *svg = draw("this run");
        ck_assert_msg(count(svg, runs[i].tokens) == 2 && count(svg, runs[i].time) == 1,
                      "%d steps: wanted %s and %s", runs[i].steps, runs[i].tokens, runs[i].time);
    }
    remove_folder(folder);
}
END_TEST

START_TEST(without_gnuplot_its_package_is_named)
{
    lh_error error = {LH_OK, ""};
    char path[512], *before = strdup(getenv("PATH"));
    folder = scratch_folder();
    write_log(2, 2, false);
    const plot_run run = {folder, "this run", 0};
    snprintf(path, sizeof path, "%s/curves.svg", folder);
    ck_assert_int_eq(setenv("PATH", "/nowhere", 1), 0);
    ck_assert_int_eq(plot_write(&run, 1, path, &error), LH_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(error.text, "gnuplot-nox"));
    ck_assert_int_ne(access(path, F_OK), 0);
    ck_assert_int_eq(setenv("PATH", before, 1), 0);
    free(before);
    remove_folder(folder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_plot");
    TCase *pictures = suite_case(suite, "pictures");
    tcase_add_test(pictures, a_run_is_drawn_with_its_switch);
    tcase_add_test(pictures, short_runs_and_empty_logs_are_drawn_too);
    tcase_add_test(pictures, axes_count_in_fitting_units);
    tcase_add_test(pictures, without_gnuplot_its_package_is_named);
    return suite_run(suite);
}
