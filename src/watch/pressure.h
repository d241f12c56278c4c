// Pressure stall information: how often somebody had to wait for a resource of this machine.
#pragma once

#include <string>
#include <string_view>

namespace bitctl {

// Percent of the last 10 s in which some process waited for `resource` ("cpu", "memory"); 0 where unknown.
double read_pressure(const std::string& resource);
// From the text of /proc/pressure/*, which may be empty.
double pressure_from(std::string_view text);

}  // namespace bitctl
