plugins {
    id("com.android.library")
    // Android Gradle plugin 9 compiles Kotlin by itself; 8 needs the next line too.
    // id("org.jetbrains.kotlin.android")
}

android {
    namespace = "cctexport.BUNDLE_NAME"
    compileSdk = 36

    defaultConfig {
        minSdk = 26
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
        consumerProguardFiles("consumer-rules.pro")
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    // The model is read from where it lies in the APK.
    androidResources { noCompress += "tflite" }
}

dependencies {
    // Its classes are in the signatures of ImageClassifier.
    api("com.google.ai.edge.litert:litert:2.3.0")
    // The GPU accelerator; without it the model runs on the CPU.
    implementation("com.google.ai.edge.litert:litert-gpu:2.3.0")

    androidTestImplementation("junit:junit:4.13.2")
    androidTestImplementation("androidx.test:runner:1.6.2")
    androidTestImplementation("androidx.test.ext:junit:1.2.1")
}
