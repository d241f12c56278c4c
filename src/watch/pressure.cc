#include "watch/pressure.h"

#include <cstdio>

#include "base/read_file.h"

namespace bitctl {

double pressure_from(std::string_view text) {
  double percent = 0;
  std::sscanf(std::string(text).c_str(), "some avg10=%lf", &percent);
  return percent;
}

double read_pressure(const std::string& resource) {
  return pressure_from(read_kernel_file("/proc/pressure/" + resource));
}

}  // namespace bitctl
