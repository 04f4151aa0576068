# Filters and methods of one name are different functions.
set_source_files_properties("${PROJECT_SOURCE_DIR}/src/text/jinja/text_filters.cpp" PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
