# Every dependency is a Debian package; scripts/install-dependencies installs them.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(Eigen3 REQUIRED NO_MODULE)
find_package(PkgConfig REQUIRED)
pkg_check_modules(sentencepiece REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)

# FAISS is a static archive that leaves BLAS open. Debian satisfies its dependency with the slow reference BLAS, so OpenBLAS is named
# here instead of whatever libblas.so points to.
find_package(OpenMP REQUIRED)
set(BLA_VENDOR OpenBLAS)
find_package(BLAS REQUIRED)
find_package(faiss REQUIRED)

if(MEMLANE_TESTS)
  find_package(GTest REQUIRED)
endif()
if(MEMLANE_BENCH)
  find_package(benchmark REQUIRED)
endif()
