#include "memory/hash.h"

#include <fmt/format.h>

#include <new>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

namespace memlane {

std::uint64_t checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

struct Fingerprint::State {
  XXH3_state_t xxh;
};

Fingerprint::Fingerprint() : state_(std::make_unique<State>()) {
  XXH3_128bits_reset(&state_->xxh);
}
Fingerprint::~Fingerprint() = default;
Fingerprint::Fingerprint(Fingerprint&&) noexcept = default;
Fingerprint& Fingerprint::operator=(Fingerprint&&) noexcept = default;

Fingerprint& Fingerprint::add(std::span<const std::byte> part) {
  const std::uint64_t size = part.size();
  XXH3_128bits_update(&state_->xxh, &size, sizeof size);
  if (size > 0) XXH3_128bits_update(&state_->xxh, part.data(), part.size());
  return *this;
}

Fingerprint& Fingerprint::add(std::string_view part) {
  return add(std::as_bytes(std::span(part)));
}

std::string Fingerprint::hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(&state_->xxh);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace memlane
