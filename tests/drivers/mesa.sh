#!/bin/sh
# Mesa's rusticl on llvmpipe, a CPU without vectors to OpenCL. The CPU body is not run: Mesa 22.3 takes loads of arguments in control flow as uniform,
# warns of it, and 24 of the 117 tensors of case small come out wrong.
. "$(dirname "$0")/with.sh"
[ -d /usr/lib/clc ] || skip "libclc-15 is not installed, and rusticl looks for it in /usr/lib/clc alone"
from_debian mesa-opencl-icd libclang-cpp15 libllvm15 libllvmspirvlib15 libdrm2 libdrm-amdgpu1 libdrm-nouveau2 \
    libdrm-radeon1 libsensors5 libelf1 libexpat1
export LD_LIBRARY_PATH="$folder/root/usr/lib/x86_64-linux-gnu" RUSTICL_ENABLE=llvmpipe
driver "$(find "$folder/root" -name 'libRusticlOpenCL.so*' | head -n 1)"
version
judge gpu "$@"
