/* A dump as it was found: which of its tensors can be judged. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check/check.h"

static verify_row *new_row(check_report *report, const char *part, lh_tensor_id id, const lh_tensor *tensor)
{
    if (report->row_count == CHECK_ROWS)
        return NULL;
    verify_row *row = &report->rows[report->row_count++];
    *row =
        (verify_row){.backend = "dump", .dtype = tensor->dtype, .part = part, .tensor = id, .shape = *tensor};
    row->shape.data = NULL;
    row->result.worst = -1;
    return row;
}

/* Sets a tensor aside that nothing behind it can be judged on; its own row says why. */
static void set_aside(check_report *report, lh_tensor *usable, lh_tensor_id id, verify_verdict verdict,
                      const char *note)
{
    verify_row *row = new_row(report, "as found", id, &usable[id]);
    if (row) {
        row->result.verdict = verdict;
        snprintf(row->note, sizeof row->note, "%s", note);
    }
    usable[id].data = NULL;
}

static bool same_shape(const lh_tensor *a, const lh_tensor *b)
{
    return a->rank == b->rank && memcmp(a->shape, b->shape, sizeof *a->shape * (size_t)a->rank) == 0;
}

/* Shape and kind of dtype; LH_INVALID when one of q, k, v is not what a layer could be computed from. */
static lh_status screen_shape(check_report *report, lh_tensor *usable, lh_tensor_id id, lh_error *error)
{
    lh_tensor *t = &usable[id], want;
    lh_error why;
    const lh_status status = lh_tensor_describe(&report->config, report->dtype, id, &want, error);
    if (status != LH_OK)
        return status;
    why.text[0] = '\0';
    verify_verdict verdict = VERIFY_SHAPE;
    if (t->dtype == LH_DTYPE_COUNT) {
        lh_fail(&why, LH_INVALID, "%s has a dtype or rank that is not read here", lh_tensor_name(id));
        verdict = VERIFY_KIND;
    } else if (!same_shape(t, &want)) {
        char found[LH_SHAPE_TEXT], wanted[LH_SHAPE_TEXT];
        lh_fail(&why, LH_INVALID, "%s has shape %s, wanted %s", lh_tensor_name(id), lh_shape_text(t, found),
                lh_shape_text(&want, wanted));
    } else if (verify_integer(t->dtype) != verify_integer(want.dtype)) {
        verdict = VERIFY_KIND;
        lh_fail(&why, LH_INVALID, "%s is %s, wanted %s", lh_tensor_name(id), lh_dtype_name(t->dtype),
                verify_integer(want.dtype) ? "I32 or I64" : "F64, F32, F16 or BF16");
    }
    if (why.text[0] == '\0')
        return LH_OK;
    if (id <= LH_V)
        return lh_fail(error, LH_INVALID, "%s", why.text);
    set_aside(report, usable, id, verdict, why.text);
    return LH_OK;
}

static bool has_nan(const lh_tensor *t)
{
    for (int64_t i = 0; i < lh_tensor_elements(t); i++) {
        if (isnan(verify_element(t, i)))
            return true;
    }
    return false;
}

static lh_status screen_values(check_report *report, lh_tensor *usable, lh_tensor_id id, lh_error *error)
{
    lh_layout layout;
    lh_error why;
    lh_config_check(&report->config, &layout, NULL);
    if (id == LH_INDEX) {
        if (lh_index_check(&report->config, &layout, &usable[id], &why) != LH_OK)
            set_aside(report, usable, id, VERIFY_WRONG, why.text);
        return LH_OK;
    }
    if (verify_integer(usable[id].dtype) || lh_tensor_finite(&usable[id], lh_tensor_name(id), &why) == LH_OK)
        return LH_OK;
    if (id <= LH_V)
        return lh_fail(error, LH_INVALID, "%s", why.text);
    set_aside(report, usable, id, has_nan(&usable[id]) ? VERIFY_NAN : VERIFY_INF, why.text);
    return LH_OK;
}

bool check_hangs_on_v(lh_tensor_id id)
{
    static const lh_tensor_id ids[] = {LH_V_PYR,  LH_V_SEL, LH_O_SEL, LH_OUT,         LH_DQ_SEL,
                                       LH_DK_SEL, LH_DQ,    LH_DK,    LH_TENSOR_COUNT};
    return lh_listed(ids, id);
}

/* Puts what can be judged into the dump. */
lh_status check_screen(check_report *report, lh_tensor *present, verify_dump *dump, lh_error *error)
{
    lh_status status = LH_OK;
    lh_tensor *usable = dump->present;
    for (int id = 0; id <= LH_K; id++) {
        if (!present[id].data)
            return lh_fail(error, LH_INVALID, "tensor %s is missing, wanted q and k",
                           lh_tensor_name((lh_tensor_id)id));
    }
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        report->present |= present[id].data ? 1u << id : 0;
        if (!present[LH_V].data && present[id].data && check_hangs_on_v((lh_tensor_id)id))
            set_aside(report, present, (lh_tensor_id)id, VERIFY_UNJUDGED, "v is not in the dump");
    }
    memcpy(usable, present, sizeof dump->present);
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++) {
        if (usable[id].data)
            status = screen_shape(report, usable, (lh_tensor_id)id, error);
        if (status == LH_OK && usable[id].data)
            status = screen_values(report, usable, (lh_tensor_id)id, error);
    }
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        dump->lost |= present[id].data && !usable[id].data ? 1u << id : 0;
    return status;
}

/* Names that people give the tensors. */
static const struct {
    const char *name, *meant;
} aliases[] = {
    {"query", "q"},
    {"queries", "q"},
    {"key", "k"},
    {"keys", "k"},
    {"value", "v"},
    {"values", "v"},
    {"o", "out"},
    {"output", "out"},
    {"outputs", "out"},
    {"y", "out"},
    {"attn_out", "out"},
    {"do", "dout"},
    {"grad_out", "dout"},
    {"grad_output", "dout"},
    {"dy", "dout"},
    {"q_grad", "dq"},
    {"grad_q", "dq"},
    {"k_grad", "dk"},
    {"grad_k", "dk"},
    {"v_grad", "dv"},
    {"grad_v", "dv"},
    {"indices", "index"},
    {"idx", "index"},
    {"logsumexp", "lse"},
    {"log_sum_exp", "lse"},
    {"cover", "coverage"},
    {"fan_in", "coverage"},
    {"q_pyramid", "q_pyr"},
    {"k_pyramid", "k_pyr"},
    {"v_pyramid", "v_pyr"},
    {"q_scores", "score_q"},
    {"k_scores", "score_k"},
};

static size_t least(size_t a, size_t b, size_t c)
{
    const size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Insertions, deletions and substitutions between two short names. */
static size_t distance(const char *a, const char *b)
{
    enum {
        LONGEST = 32
    };
    size_t row[LONGEST + 1];
    const size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            const size_t above = row[j];
            row[j] = least(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[m];
}

/* What a name was probably meant to be; NULL when nothing is near. */
static const char *guess(const char *name)
{
    char low[64];
    size_t n = 0;
    for (; name[n] && n + 1 < sizeof low; n++)
        low[n] = (char)tolower((unsigned char)(name[n] == '-' || name[n] == '.' ? '_' : name[n]));
    low[n] = '\0';
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        if (strcmp(low, aliases[i].name) == 0)
            return aliases[i].meant;
    }
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        const char *known = lh_tensor_name((lh_tensor_id)id);
        if (strcmp(low, known) == 0 || (n > 3 && distance(low, known) <= 1))
            return known;
    }
    return NULL;
}

void check_collect(const lh_file *file, lh_tensor *present, check_report *report)
{
    memset(present, 0, sizeof *present * LH_TENSOR_COUNT);
    report->unknown_count = 0;
    for (int i = 0; i < lh_file_count(file); i++) {
        const char *name = lh_file_name(file, i);
        const lh_tensor_id id = lh_tensor_by_name(name);
        if (id != LH_TENSOR_COUNT && lh_file_tensor(file, i)->dtype != LH_DTYPE_COUNT) {
            present[id] = *lh_file_tensor(file, i);
        } else if (report->unknown_count < CHECK_UNKNOWN) {
            struct check_unknown *unknown = &report->unknown[report->unknown_count++];
            snprintf(unknown->name, sizeof unknown->name, "%s", name);
            lh_clean(unknown->name);
            unknown->guess = id == LH_TENSOR_COUNT ? guess(name) : NULL;
        }
    }
}

static bool take_tensor(const char *name, unsigned *bits)
{
    const lh_tensor_id id = lh_tensor_by_name(name);
    if (id == LH_TENSOR_COUNT || check_stage_of(id) == LH_STAGE_COUNT)
        return false;
    *bits |= 1u << id;
    return true;
}

/* Calls `take` with each of the names between commas. */
static lh_status each_name(const char *names, bool (*take)(const char *name, unsigned *bits),
                           const char *(*nearest)(const char *name), const char *wanted, unsigned *bits,
                           lh_error *error)
{
    while (*names) {
        char name[32];
        const size_t n = strcspn(names, ",");
        snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), names);
        if (!take(name, bits)) {
            const char *near = nearest(name);
            return lh_fail(error, LH_INVALID, "'%s' is unknown, wanted %s%s%s%s", name, wanted,
                           near ? "; is it " : "", near ? near : "", near ? "?" : "");
        }
        names += n + (names[n] == ',');
    }
    return LH_OK;
}

lh_status check_parse_tensors(const char *names, unsigned *ids, lh_error *error)
{
    return each_name(names, take_tensor, guess, "names of computed tensors, out,dq,...", ids, error);
}

static const struct {
    const char *name;
    unsigned habit;
    const char *what;
} habits[] = {
    {"tf32", VERIFY_TF32, "products of attention take operands cut to 11 bits"},
    {"rounded-logits", VERIFY_ROUNDED_LOGITS, "logits are rounded to the type of q before the softmax"},
    {"half-sums", VERIFY_HALF_SUMS, "sums are kept in the type of q"},
    {"naive-softmax", VERIFY_ROUNDED_LOGITS | VERIFY_HALF_SUMS, "the softmax is computed in the type of q"},
};

const char *check_habit(int i, unsigned *habit, const char **what)
{
    if (i < 0 || i >= (int)(sizeof habits / sizeof *habits))
        return NULL;
    *habit = habits[i].habit;
    *what = habits[i].what;
    return habits[i].name;
}

static const char *no_guess(const char *name)
{
    (void)name;
    return NULL;
}

static bool take_habit(const char *name, unsigned *bits)
{
    for (size_t i = 0; i < sizeof habits / sizeof *habits; i++) {
        if (strcmp(name, habits[i].name) == 0) {
            *bits |= habits[i].habit;
            return true;
        }
    }
    return false;
}

lh_status check_parse_habits(const char *names, unsigned *bits, lh_error *error)
{
    return each_name(names, take_habit, no_guess, "tf32, rounded-logits, half-sums or naive-softmax", bits,
                     error);
}
