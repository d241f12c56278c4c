// Which decoder answers: the one place where `bitctl chat` meets an implementation.
#pragma once

#include <memory>

#include "chat/loader.h"

namespace bitctl {

Result<std::unique_ptr<Decoder>> open_model(const ModelFiles& files, const OpenOptions& options,
                                            const LoadProgress& progress);

}  // namespace bitctl
