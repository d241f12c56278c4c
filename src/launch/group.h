// Isolation by process group alone: see launch/isolation.h.
#pragma once

#include "launch/isolation.h"

namespace bitctl {

std::unique_ptr<Isolation> isolate_by_group();

}  // namespace bitctl
