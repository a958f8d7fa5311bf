/* SPDX-License-Identifier: MIT */
/* The table of size classes; tests/test_sizeclass.c recomputes it from the rule in the header. */
#include "alloc/sizeclass.h"

#define CLASS(bytes, units)                                                                        \
    {                                                                                              \
        (bytes), (units), (((uint64_t)1 << RECIPROCAL_LOG2) + (bytes)-1) / (bytes)                 \
    }

const struct sizeclass sizeclasses[CLASS_COUNT + 1] = {
    {0, 0, 0},        CLASS(16, 1),     CLASS(32, 1),     CLASS(48, 1),     CLASS(64, 1),
    CLASS(80, 1),     CLASS(96, 1),     CLASS(112, 1),    CLASS(128, 1),    CLASS(160, 1),
    CLASS(192, 1),    CLASS(224, 1),    CLASS(256, 1),    CLASS(320, 1),    CLASS(384, 1),
    CLASS(448, 1),    CLASS(512, 1),    CLASS(640, 1),    CLASS(768, 1),    CLASS(896, 1),
    CLASS(1024, 1),   CLASS(1280, 1),   CLASS(1536, 1),   CLASS(1792, 1),   CLASS(2048, 1),
    CLASS(2304, 1),   CLASS(2560, 1),   CLASS(2816, 1),   CLASS(3072, 1),   CLASS(3328, 2),
    CLASS(3584, 1),   CLASS(3840, 1),   CLASS(4096, 1),   CLASS(4608, 1),   CLASS(5120, 2),
    CLASS(5632, 2),   CLASS(6144, 2),   CLASS(6656, 3),   CLASS(7168, 1),   CLASS(7680, 2),
    CLASS(8192, 1),   CLASS(10240, 3),  CLASS(12288, 3),  CLASS(14336, 2),  CLASS(16384, 2),
    CLASS(20480, 5),  CLASS(24576, 3),  CLASS(28672, 4),  CLASS(32768, 4),  CLASS(40960, 5),
    CLASS(49152, 3),  CLASS(57344, 7),  CLASS(65536, 4),  CLASS(81920, 5),  CLASS(98304, 3),
    CLASS(114688, 7), CLASS(131072, 4), CLASS(163840, 5), CLASS(196608, 6), CLASS(229376, 7),
    CLASS(262144, 8),
};

unsigned sizeclass_aligned(size_t size, size_t alignment)
{
    /* Within a doubling classes are all the multiples of a step, a quarter or an eighth of it. An
     * alignment up to that step divides them all; of a larger one the multiples are classes. */
    size_t least = round_up(max_size(size, 1), alignment);

    return least > CLASS_BYTES_MAX ? CLASS_NONE : sizeclass_of(least);
}
