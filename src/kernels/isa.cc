#include "kernels/isa.h"

#include <fmt/format.h>

#include "base/environment_variable.h"

namespace bitctl {
namespace {

constexpr Isa kAll[] = {Isa::scalar, Isa::avx2, Isa::avx512};

}  // namespace

std::string_view name_of(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  return "";
}

Isa machine_isa() {
  const auto has = [](auto... answers) { return (answers && ...); };
  if (!has(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma"), __builtin_cpu_supports("f16c")))
    return Isa::scalar;
  if (!has(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"),
           __builtin_cpu_supports("avx512dq"), __builtin_cpu_supports("avx512vl"),
           __builtin_cpu_supports("avx512vnni")))
    return Isa::avx2;
  return Isa::avx512;
}

Result<Isa> choose_isa(std::optional<std::string_view> wanted, Isa machine) {
  if (!wanted || wanted->empty()) return machine;
  for (const Isa isa : kAll) {
    if (name_of(isa) != *wanted) continue;
    if (isa <= machine) return isa;
    return fail(ErrorKind::invalid,
                fmt::format("BITCTL_ISA={}: this machine has {} at most", *wanted, name_of(machine)));
  }
  return fail(ErrorKind::invalid, fmt::format("BITCTL_ISA={}: not one of scalar, avx2, avx512", *wanted));
}

Result<Isa> isa_of_environment() { return choose_isa(environment_variable("BITCTL_ISA"), machine_isa()); }

Isa default_isa() {
  static const Isa chosen = isa_of_environment().value_or(machine_isa());
  return chosen;
}

}  // namespace bitctl
