package android.content.res

import java.io.File
import java.io.InputStream

/** The merged assets of several folders, as in an APK. */
class AssetManager(private val roots: List<File>) {
    fun open(name: String): InputStream =
        roots.map { File(it, name) }.first { it.isFile }.inputStream()
}
