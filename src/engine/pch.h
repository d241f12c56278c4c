// What nearly every file of the module includes, compiled once.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/StringUtil.h>

#include <nlohmann/json.hpp>
