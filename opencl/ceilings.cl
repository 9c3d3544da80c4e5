/*
 * ceilings.cl: C = A^T B in float32, n a multiple of 64, for the rate that `lighthouse bench` compares a GPU with.
 *
 * A work-group of 16 x 16 owns a tile of 64 x 64, 4 x 4 a work-item; 16 rows of A and of B pass through local memory at a time.
 */
__kernel __attribute__((reqd_work_group_size(16, 16, 1))) void
product(__global const float *a, __global const float *b, __global float *c, int n)
{
    __local float4 left[16][16], right[16][16];
    const int x = (int)get_local_id(0), y = (int)get_local_id(1);
    const int column = (int)get_group_id(0) * 64 + 4 * x, row = (int)get_group_id(1) * 64 + 4 * y;
    const int from = (int)get_group_id(1) * 64 + 4 * x;
    float4 sum[4] = {0, 0, 0, 0};
    for (int k = 0; k < n; k += 16) {
        left[y][x] = vload4(0, a + (long)(k + y) * n + from);
        right[y][x] = vload4(0, b + (long)(k + y) * n + column);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = 0; i < 16; i++) {
            const float4 of_rows = left[i][y], of_columns = right[i][x];
            sum[0] = fma(of_rows.x, of_columns, sum[0]);
            sum[1] = fma(of_rows.y, of_columns, sum[1]);
            sum[2] = fma(of_rows.z, of_columns, sum[2]);
            sum[3] = fma(of_rows.w, of_columns, sum[3]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (int i = 0; i < 4; i++)
        vstore4(sum[i], 0, c + (long)(row + i) * n + column);
}
