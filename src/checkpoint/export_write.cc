#include "checkpoint/export_write.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/visible_text.h"
#include "checkpoint/digest.h"
#include "safetensors/element.h"
#include "safetensors/quantize.h"

namespace bitctl {
namespace {

constexpr uint64_t kPieceBytes = uint64_t{4} << 20;

class Export {
 public:
  Export(const std::vector<ExportSource>& sources, FileOps& ops, Exported& exported)
      : sources_(sources), ops_(ops), exported_(exported) {}

  Status write(const std::string& path, const ExportPlan& plan) {
    path_ = path;
    auto metadata = sources_.front().stream.header().metadata;
    std::erase_if(metadata, [](const auto& entry) { return entry.first == kFrozenKey; });
    const auto header = build_header(plan.laid_out, metadata);
    if (!header) return tl::unexpected(header.error());
    data_ = header->size();
    exported_.bytes = data_ + (plan.laid_out.empty() ? 0 : plan.laid_out.back().end);
    fd_ = ops_.open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd_ < 0) return fail_errno("cannot create " + path);
    Status status = write_all_tensors(*header, plan);
    if (status && ops_.fsync(fd_) != 0) status = fail_errno("cannot sync " + path);
    if (ops_.close(fd_) != 0 && status) status = fail_errno("cannot close " + path);
    return status;
  }

 private:
  Status write_all_tensors(const std::string& header, const ExportPlan& plan) {
    // A full disk is told before the work, where the file system can.
    if (ops_.fallocate(fd_, static_cast<off_t>(exported_.bytes)) != 0 && errno != EOPNOTSUPP &&
        errno != ENOSYS)
      return fail_errno("cannot write " + path_);
    if (auto status = put(0, header.data(), header.size()); !status) return status;
    // The manifest's tensors stand in the order of the header's, and so does the plan.
    auto next = plan.tensors.begin();
    for (const ExportSource& source : sources_) {
      source_ = &source.stream;
      for (const ManifestTensor& saved : source.file.tensors)
        if (auto status = write_checked(*next++, saved.xxh3); !status) return status;
    }
    return {};
  }

  Status write_checked(const PlannedTensor& tensor, const std::string& xxh3) {
    digest_.reset();
    if (auto status = write_tensor(tensor); !status) return status;
    if (tensor.source.bytes() > 0 && digest_.hex() != xxh3)
      return fail(ErrorKind::damaged, fmt::format("{}: tensor {} does not match its digest", source_->path(),
                                                  visible_text(tensor.source.name)));
    ++exported_.tensors;
    exported_.cast += tensor.as == ExportAs::cast;
    exported_.quantized += tensor.as == ExportAs::int8 || tensor.as == ExportAs::ternary;
    return {};
  }

  Status write_tensor(const PlannedTensor& tensor) {
    switch (tensor.as) {
      case ExportAs::copy:
        return copy(tensor);
      case ExportAs::cast:
        return cast(tensor);
      case ExportAs::int8:
        return write_int8(tensor);
      case ExportAs::ternary:
        return write_ternary(tensor);
    }
    return {};
  }

  Status copy(const PlannedTensor& tensor) {
    for (uint64_t at = 0; at < tensor.source.bytes(); at += kPieceBytes) {
      const uint64_t size = std::min(kPieceBytes, tensor.source.bytes() - at);
      if (auto status = get(tensor.source.begin + at, size); !status) return status;
      digest_.update(bytes_.data(), size);
      if (auto status = put(data_ + tensor.weight.begin + at, bytes_.data(), size); !status) return status;
    }
    return {};
  }

  Status cast(const PlannedTensor& tensor) {
    const uint64_t width = dtype_bits(tensor.weight.dtype) / 8;
    return each_piece(tensor.source, 1, [&](uint64_t first, size_t count) {
      out_.resize(count * width);
      write_floats(tensor.weight.dtype, floats_.data(), count, out_.data());
      count_overflows(tensor.weight.dtype, count);
      return put(data_ + tensor.weight.begin + first * width, out_.data(), out_.size());
    });
  }

  Status write_int8(const PlannedTensor& tensor) {
    const auto columns = static_cast<size_t>(tensor.source.shape[1]);
    return each_piece(tensor.source, columns, [&](uint64_t first, size_t count) {
      const size_t rows = count / columns;
      out_.resize(count);
      std::vector<float> scales(rows);
      for (size_t row = 0; row < rows; ++row)
        scales[row] = quantize_row(floats_.data() + row * columns, columns,
                                   reinterpret_cast<int8_t*>(out_.data() + row * columns));
      if (auto status = put(data_ + tensor.weight.begin + first, out_.data(), out_.size()); !status)
        return status;
      return put(data_ + tensor.scale.begin + first / columns * sizeof(float),
                 reinterpret_cast<const char*>(scales.data()), rows * sizeof(float));
    });
  }

  // Once for the mean, which also checks the bytes, and once for the quarters side by side.
  Status write_ternary(const PlannedTensor& tensor) {
    double sum = 0;
    uint64_t elements = 0;
    if (auto status = each_piece(tensor.source, 1,
                                 [&](uint64_t, size_t count) -> Status {
                                   double piece = 0;
                                   for (size_t i = 0; i < count; ++i) piece += std::abs(floats_[i]);
                                   sum += piece;
                                   elements += count;
                                   return {};
                                 });
        !status)
      return status;
    const float mean =
        elements == 0 ? 1.0F : std::max(static_cast<float>(sum / static_cast<double>(elements)), 1e-5F);
    if (!std::isfinite(mean))
      return fail(ErrorKind::invalid,
                  fmt::format("tensor {} holds a NaN or an infinity, and its mean is none",
                              visible_text(tensor.source.name)));
    if (auto status = write_quarters(tensor, 1.0F / mean); !status) return status;
    char scale[2];
    write_floats("BF16", &mean, 1, scale);
    return put(data_ + tensor.scale.begin, scale, sizeof scale);
  }

  Status write_quarters(const PlannedTensor& tensor, float inverse_mean) {
    const auto columns = static_cast<uint64_t>(tensor.source.shape[1]);
    const auto quarter = static_cast<uint64_t>(tensor.weight.shape[0]);
    const uint64_t width = dtype_bits(tensor.source.dtype) / 8;
    std::vector<float> rows[4];
    const uint64_t elements = quarter * columns;
    for (uint64_t first = 0; first < elements; first += kPieceBytes / 4) {
      const auto count = static_cast<size_t>(std::min(kPieceBytes / 4, elements - first));
      for (uint64_t i = 0; i < 4; ++i) {
        if (auto status = get(tensor.source.begin + (i * elements + first) * width, count * width); !status)
          return status;
        rows[i].resize(count);
        read_floats(tensor.source.dtype, bytes_.data(), count, rows[i].data());
      }
      out_.resize(count);
      const float* const four[4] = {rows[0].data(), rows[1].data(), rows[2].data(), rows[3].data()};
      pack_ternary(four, count, inverse_mean, reinterpret_cast<uint8_t*>(out_.data()));
      if (auto status = put(data_ + tensor.weight.begin + first, out_.data(), count); !status) return status;
    }
    return {};
  }

  // Reads the tensor once in pieces of whole rows of `columns` elements into floats_; use(first element,
  // count).
  template <typename Use>
  Status each_piece(const TensorInfo& tensor, size_t columns, Use use) {
    const uint64_t width = dtype_bits(tensor.dtype) / 8;
    const uint64_t elements = tensor.bytes() / width;
    if (elements == 0) return {};
    const uint64_t piece = std::max<uint64_t>(1, kPieceBytes / width / columns) * columns;
    for (uint64_t first = 0; first < elements; first += piece) {
      const auto count = static_cast<size_t>(std::min(piece, elements - first));
      if (auto status = get(tensor.begin + first * width, count * width); !status) return status;
      digest_.update(bytes_.data(), count * width);
      floats_.resize(count);
      read_floats(tensor.dtype, bytes_.data(), count, floats_.data());
      if (tensor.dtype == "F64") count_narrowed(count);
      if (auto status = use(first, count); !status) return status;
    }
    return {};
  }

  // F64 to float, before anything else.
  void count_narrowed(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      double value = 0;
      std::memcpy(&value, bytes_.data() + i * sizeof value, sizeof value);
      exported_.overflowed += std::isfinite(value) && !std::isfinite(floats_[i]);
    }
  }

  void count_overflows(const std::string& dtype, size_t count) {
    if (dtype == "F32") return;
    for (size_t i = 0; i < count; ++i) {
      uint16_t bits = 0;
      std::memcpy(&bits, out_.data() + 2 * i, sizeof bits);
      const float value = dtype == "BF16" ? float_of_bf16(bits) : float_of_f16(bits);
      exported_.overflowed += std::isfinite(floats_[i]) && !std::isfinite(value);
    }
  }

  Status get(uint64_t offset, uint64_t size) {
    bytes_.resize(size);
    return source_->read(offset, size, bytes_.data());
  }

  Status put(uint64_t offset, const char* data, size_t size) {
    for (size_t done = 0; done < size;) {
      const ssize_t n = ops_.pwrite(fd_, data + done, size - done, static_cast<off_t>(offset + done));
      if (n < 0) return fail_errno("cannot write " + path_);
      if (n == 0) return fail_errno("cannot write " + path_, EIO);
      done += static_cast<size_t>(n);
    }
    return {};
  }

  const std::vector<ExportSource>& sources_;
  const TensorStream* source_ = nullptr;  // of the tensor at hand
  FileOps& ops_;
  Exported& exported_;
  std::string path_;
  int fd_ = -1;
  uint64_t data_ = 0;  // where the data of the new file starts
  Digest digest_;
  std::string bytes_, out_;
  std::vector<float> floats_;
};

}  // namespace

Status write_exported(const std::string& path, const std::vector<ExportSource>& sources,
                      const ExportPlan& plan, FileOps& ops, Exported& exported) {
  return Export(sources, ops, exported).write(path, plan);
}

}  // namespace bitctl
