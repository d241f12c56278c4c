// Which of the machine's instructions the kernels use.
#pragma once

#include <optional>
#include <string_view>

#include "base/result.h"

namespace bitctl {

// Each holds all that is left of it.
enum class Isa {
  scalar,  // what every x86-64 has
  avx2,    // AVX2, FMA, F16C
  avx512,  // AVX-512 F, BW, DQ, VL, VNNI
};

std::string_view name_of(Isa isa);

// The highest that this processor and its system have.
Isa machine_isa();

// What was asked for by name, e.g. by BITCTL_ISA; the machine's where nothing was. A name that is none, or
// one that this machine lacks, is an error.
Result<Isa> choose_isa(std::optional<std::string_view> wanted, Isa machine);

// What BITCTL_ISA asks for.
Result<Isa> isa_of_environment();

// The same, looked up at the first call; the machine's where that is an error.
Isa default_isa();

}  // namespace bitctl
