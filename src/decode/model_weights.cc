#include "decode/model_weights.h"

#include <fmt/format.h>

#include "base/visible_text.h"

namespace bitctl {

Result<std::map<std::string_view, ModelTensor>> tensors_by_name(const ModelWeights& weights) {
  std::map<std::string_view, ModelTensor> tensors;
  for (const auto& file : weights)
    for (const TensorInfo& info : file->header().tensors)
      if (!tensors.try_emplace(info.name, ModelTensor{&info, file->bytes(info)}).second)
        return fail(ErrorKind::invalid, fmt::format("{}: tensor {} is in another part, too", file->path(),
                                                    visible_text(info.name)));
  return tensors;
}

}  // namespace bitctl
