#!/bin/sh
# PoCL 6 and Mesa 25 (rusticl on llvmpipe), as Debian 13 has them, in a root of its own. PoCL runs both bodies from 5 on, and so does
# Mesa 25.
. "$(dirname "$0")/with.sh"
from_release trixie pocl-opencl-icd mesa-opencl-icd ocl-icd-libopencl1
export RUSTICL_ENABLE=llvmpipe
for icd in pocl rusticl; do
    export OCL_ICD_VENDORS=/etc/OpenCL/vendors/$icd.icd
    version
    for body in cpu gpu; do
        judge $body "$@"
    done
    same_bits
done
