// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC11): random
// numbers by counter. The same key and counter give the same number on every machine, in any order.
#pragma once

#include <array>
#include <cstdint>

namespace bitctl {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

PhiloxCounter philox(PhiloxCounter counter, PhiloxKey key);

// Uniform in [0, 1), 53 bits, decided by seed and position alone.
double uniform_at(uint64_t seed, uint64_t position);

}  // namespace bitctl
