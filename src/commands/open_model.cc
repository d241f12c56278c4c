#include "commands/open_model.h"

namespace bitctl {

Result<std::unique_ptr<Decoder>> open_model(const ModelFiles&, const OpenOptions&, const LoadProgress&) {
  return fail(ErrorKind::not_found, "no decoder in this build");
}

}  // namespace bitctl
