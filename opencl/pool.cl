/*
 * pool.cl: the mean of p^l tokens, every level in one pass over the tokens (SPEC 3.1).
 *
 * x [B,heads,N,d] -> pyramid [B,heads,P,d]; level 0 is a copy. A work-item holds VEC columns of one coarsest
 * window and one running sum per level: when a window of level l ends, its sum is divided and stored, and
 * carried into level l+1. Of a segment, `windows` coarsest windows, the pyramid is one of its own. -D LANES (work-items that
 * share a row).
 */
kernel void pool_windows(const global store_t *x, long4 x_at, global store_t *pyramid, long4 pyramid_at,
                         int first, int heads, int here, long windows, const struct shape s)
{
    const index_t coarse = windows, tokens = s.end - s.begin, pool = POOL_OF(s);
    const int levels = LEVELS_OF(s), dim = s.dim;
    const long window = get_global_id(0) / LANES;
    if (window >= here * windows)
        return;
    const int head = first + window / coarse;
    const index_t width = tokens / coarse;
    const index_t start = window % coarse * width;
    for (int c = get_global_id(0) % LANES * VEC; c < dim; c += LANES * VEC) {
        const int left = dim - c;
        const long from = row_at(x_at, head, heads, s.begin) + c;
        const long to = row_at(pyramid_at, head, heads, 0) + c;
        vfloat sum[MOST_LEVELS];
        for (int l = 0; l < levels; l++)
            sum[l] = 0;
        for (index_t token = start; token < start + width; token++) {
            sum[0] = load_columns(x, from + token * x_at.w, left);
            store_columns(sum[0], pyramid, to + token * pyramid_at.w, left);
            index_t entry = token, size = tokens, offset = 0, tokens_in = 1;
            bool ends = true;
            for (int l = 1; l < levels && ends; l++) {
                sum[l] += sum[l - 1];
                sum[l - 1] = 0;
                ends = (entry + 1) % pool == 0;
                entry /= pool;
                offset += size;
                size /= pool;
                tokens_in *= pool;
                if (ends)
                    store_columns(sum[l] / (float)tokens_in, pyramid, to + (offset + entry) * pyramid_at.w,
                                  left);
            }
        }
        /* The last level's sum is not carried on. */
    }
}
