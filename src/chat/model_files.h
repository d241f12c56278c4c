// From what the user named to the files of a model: a .safetensors file with config.json and tokenizer.json
// beside it, a folder that holds them (in several parts, where model.safetensors.index.json names them), or a
// run (its finished model, else its newest step) by folder, id or prefix; nothing named means the newest run.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace bitctl {

struct ModelFiles {
  std::string name;                  // for people
  std::vector<std::string> weights;  // the .safetensors file, or all parts of it
  std::string folder;                // holds config.json, tokenizer.json and the rest
};

// Error::not_found where nothing is at that path, Error::invalid where it is no model, Error::damaged where
// the index is none; the message says what is missing. Reads folders and the index only; the files are opened
// by whoever uses them.
Result<ModelFiles> find_model_files(const std::string& path);

}  // namespace bitctl
