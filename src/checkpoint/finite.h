// Whether bytes hold a NaN or an infinity, at the speed of memory and in no memory of its own.
#pragma once

#include <string_view>

namespace bitctl {

// `bytes` are whole elements of that dtype (as safetensors names it), aligned for nothing. Integers, BOOL and
// dtypes that are not known are always finite.
bool all_finite(std::string_view dtype, std::string_view bytes);

}  // namespace bitctl
